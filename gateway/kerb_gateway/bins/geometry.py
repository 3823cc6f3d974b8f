"""A distance becomes a filling level by volume.

Rule: without a trustworthy distance there is no level; "no echo" is never 0 %.

Both shapes have a constant cross-section, so their volume grows with the height. Waste lies in a
heap; what the beam sees is its top, which is taken as the level's height.
"""

from __future__ import annotations

from kerb_gateway.model import Geometry

_TRUSTED = ("good", "uncertain")


def fill_pct(geometry: Geometry | None, distance_mm: int | None, quality: str) -> float | None:
    """Return 0.0 to 100.0, or None where nothing can be said.

    A blind zone means that something is nearer than the transducer can tell: the bin is full.
    """
    if geometry is None:
        return None
    if quality == "blind_zone":
        return 100.0
    if distance_mm is None or quality not in _TRUSTED:
        return None
    span_mm = geometry.empty_distance_mm - geometry.full_distance_mm
    part = (geometry.empty_distance_mm - distance_mm) / span_mm
    return round(min(1.0, max(0.0, part)) * 100, 1)
