"""A container as a volume of waste with a heap on top, and what a beam from above sees of it.

Rule: truth is a volume; the surface follows from it, and distances follow from the surface. The
sensor's model is not inverted anywhere.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

_PATCHES = 48  # points of the beam's footprint that are looked at


@dataclass(frozen=True)
class Shape:
    """A container of constant cross-section; distances from the transducer in mm."""

    kind: str  # box | cylinder
    radius_mm: float  # of the cross-section, or of the circle of the same area
    empty_distance_mm: int
    full_distance_mm: int

    @property
    def height_mm(self) -> int:
        return self.empty_distance_mm - self.full_distance_mm


# Rough sizes of what stands in streets: a 1,100 l wheelie bin, an underground silo of 3 m3, a
# 240 l bin, a glass container.
CATALOGUE = (
    Shape("box", 600.0, 1250, 350),
    Shape("cylinder", 750.0, 2100, 450),
    Shape("box", 280.0, 1050, 330),
    Shape("cylinder", 620.0, 1600, 400),
)


class Container:
    """Waste in a shape: bags arrive, the heap settles, a lorry empties it."""

    def __init__(self, shape: Shape, fill: float, rng: random.Random) -> None:
        """fill: 0 to 1 of the volume below full_distance."""
        self.shape = shape
        self.fill = fill
        self._rng = rng
        self._slope = rng.uniform(0.01, 0.05)  # of the heap's cone, after settling
        self._apex = (rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2))
        self.emptied = 0

    def add(self, part: float) -> bool:
        """Put in a part of the volume; True when that made a lorry come."""
        self.fill += part
        if self.fill < 0.97:
            return False
        self.fill = self._rng.uniform(0.01, 0.05)
        self._slope = self._rng.uniform(0.01, 0.05)
        self.emptied += 1
        return True

    def surface_mm(self, x_mm: float, y_mm: float) -> float:
        """Return the distance from the transducer's plane down to the waste at a point."""
        level_mm = self.shape.empty_distance_mm - self.fill * self.shape.height_mm
        radius = self.shape.radius_mm
        off = math.hypot(x_mm - self._apex[0] * radius, y_mm - self._apex[1] * radius)
        # The cone's mean height over the circle is a third of its apex: the volume stays true.
        heap_mm = self._slope * radius
        return level_mm - heap_mm * (1 - off / radius) + heap_mm / 3

    def footprint_mm(self, half_angle: float) -> tuple[float, float]:
        """Return (mean, nearest) slant-corrected distance over the beam's footprint."""
        centre = self.surface_mm(0, 0)
        reach = min(self.shape.radius_mm, max(1.0, centre * math.tan(half_angle)))
        total, nearest = 0.0, math.inf
        for index in range(_PATCHES):
            # A sunflower pattern covers the disc evenly.
            radius = reach * math.sqrt((index + 0.5) / _PATCHES)
            angle = index * 2.399963
            x_mm, y_mm = radius * math.cos(angle), radius * math.sin(angle)
            depth = self.surface_mm(x_mm, y_mm)
            total += depth
            nearest = min(nearest, math.hypot(depth, radius))
        return total / _PATCHES, nearest
