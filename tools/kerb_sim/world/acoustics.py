"""What comes back of a ping: flight time, noise, ghosts, soft waste, the blind zone.

Rule: the air's temperature sets the speed of sound; the transducer does not know it.

Sources: c = 331.3 m/s * sqrt(1 + T / 273.15); JSN-SR04T-2.0 datasheet for the blind zone.
"""

from __future__ import annotations

import math
import random

HALF_ANGLE = math.radians(6)  # of the cone from which the first echo comes
_JITTER_US = 9.0
_GHOST = 0.04  # a wall or the lid's edge answers first or late
_SOFT = 0.02  # textile or foam swallows the ping
_BLIND_MM = 200.0


def speed_m_s(air_c: float) -> float:
    """Return the speed of sound in air."""
    return 331.3 * math.sqrt(1 + air_c / 273.15)


def echo_us(nearest_mm: float, air_c: float, rng: random.Random) -> int:
    """Return one ping's flight time in microseconds, or -1 when nothing comes back."""
    if rng.random() < _SOFT:
        return -1
    distance_mm = nearest_mm
    if rng.random() < _GHOST:
        distance_mm *= rng.choice((0.6, 1.35, 1.8))
    flight_us = distance_mm * 2000 / speed_m_s(air_c)
    if distance_mm < _BLIND_MM:
        flight_us = _BLIND_MM * 2000 / speed_m_s(air_c) * rng.uniform(0.8, 1.0)
    return max(1, round(rng.gauss(flight_us, _JITTER_US)))
