"""One burst of echoes becomes one distance, its scatter, and a quality: how far to trust it.

Rule: no echo is an event of its own, never an empty bin; an outlier is rejected by the Hampel
identifier (median and MAD), because a median alone moves with every second ghost echo. Where most
of a burst are ghosts the MAD is as wide as the bin and rejects nothing: then the densest group of
echoes is taken instead of a mean that nothing has reflected, and the reading stays uncertain.

Source: F. R. Hampel, "The influence curve and its role in robust estimation", 1974; the factor
1.4826 makes the median absolute deviation estimate a normal sigma.
"""

from kerb_wire.records import NO_DISTANCE, SIGMA_MAX_MM
from kerb_wire.words import QUALITIES, code

from kerb_node.fill.sound import distance_mm

GOOD = code(QUALITIES, "good")
UNCERTAIN = code(QUALITIES, "uncertain")
NO_ECHO = code(QUALITIES, "no_echo")
BLIND_ZONE = code(QUALITIES, "blind_zone")
STUCK = code(QUALITIES, "stuck")
OUT_OF_RANGE = code(QUALITIES, "out_of_range")

_HAMPEL_SIGMAS = 3
_MAD_TO_SIGMA = 1.4826
_SCATTER_FLOOR_MM = 4  # the transducer's own resolution: below it nothing is an outlier
_UNCERTAIN_SIGMA_MM = 25
_GROUP_MM = 6 * _UNCERTAIN_SIGMA_MM  # as wide as one surface may scatter: three sigmas either way
_STUCK_WAKES = 24  # the very same microsecond in that many wakes in a row: no real echo does that


def _median(values):
    # Of an even number the nearer one: between two groups of echoes there is nothing that could
    # have sent one.
    return sorted(values)[(len(values) - 1) // 2]


def inliers(values_mm):
    """Return the values that lie within three robust sigmas of their median."""
    if not values_mm:
        return []
    centre = _median(values_mm)
    spread = _MAD_TO_SIGMA * _median([abs(value - centre) for value in values_mm])
    limit = max(_HAMPEL_SIGMAS * spread, _HAMPEL_SIGMAS * _SCATTER_FLOOR_MM)
    return [value for value in values_mm if abs(value - centre) <= limit]


def densest(values_mm):
    """Return the largest group of values within 150 mm, of groups alike the nearest."""
    ordered = sorted(values_mm)
    largest = []
    for first, nearest in enumerate(ordered):
        group = [value for value in ordered[first:] if value - nearest <= _GROUP_MM]
        if len(group) > len(largest):
            largest = group
    return largest


def _summary(values_mm):
    """Return (mean, sigma_mm); a single value says nothing of its scatter: the widest."""
    mean = sum(values_mm) / len(values_mm)
    if len(values_mm) < 2:
        return mean, SIGMA_MAX_MM
    total = sum((value - mean) * (value - mean) for value in values_mm)
    return mean, min(SIGMA_MAX_MM, int((total / (len(values_mm) - 1)) ** 0.5 + 0.5))


def estimate(echoes_us, temperature_dc, blind_zone_mm, reach_mm, same_count):
    """Return (distance_mm or NO_DISTANCE, sigma_mm, quality, echoes used).

    echoes_us: one flight time a ping, negative where none came back; same_count: wakes in a row
    with the very same shortest echo.
    """
    heard = [distance_mm(echo, temperature_dc) for echo in echoes_us if echo > 0]
    near = [value for value in heard if value < blind_zone_mm]
    usable = [value for value in heard if blind_zone_mm <= value <= reach_mm]
    kept = inliers(usable)
    if not kept:
        if near:
            return NO_DISTANCE, SIGMA_MAX_MM, BLIND_ZONE, len(near)
        return NO_DISTANCE, SIGMA_MAX_MM, OUT_OF_RANGE if heard else NO_ECHO, 0
    if len(near) > len(kept):
        return NO_DISTANCE, SIGMA_MAX_MM, BLIND_ZONE, len(near)
    mean, sigma_mm = _summary(kept)
    scattered = sigma_mm > _UNCERTAIN_SIGMA_MM
    if scattered:
        kept = densest(kept)
        mean, sigma_mm = _summary(kept)
    quality = GOOD
    if same_count >= _STUCK_WAKES:
        quality = STUCK
    elif scattered or 2 * len(kept) <= len(echoes_us):
        quality = UNCERTAIN
    return int(mean + 0.5), sigma_mm, quality, len(kept)
