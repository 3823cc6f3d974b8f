"""From the clock that never jumps to wall time: anchors of the gateway's boots.

Rule: an anchor is written only while somebody keeps the wall clock right, and says how far off it
may be; what lies further from it is less sure; where two contradict each other the newer one
counts. Pure.

Wall time = boottime + offset. Slewing moves both clocks alike, so the offset changes by steps
only; what it cannot know is how far the quartz ran off before or after NTP kept it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from kerb_gateway.clock import NTP_ERROR_MS

# The quartz of a Raspberry Pi is within 50 ppm over its temperatures; twice that.
DRIFT_PPM = 100
STEP_MS = 500  # an offset that moved by more is worth a new anchor
AGAIN_MS = 24 * 3600 * 1000  # and so is a day: the next loss of NTP begins from a fresh one
PAUSE_MS = 600_000  # however the wall clock jumps, anchors are at least so far apart

NTP = "ntp"  # the wall clock was kept right when the reading arrived
ANCHORED = "anchored"  # this boot of the gateway was, at another time
RANGE = "range"  # never in this boot: bounded by the boots before and after
NONE = "none"


@dataclass(frozen=True)
class Anchor:
    """At boottime_ms of its boot the wall clock was right, to within uncertainty_ms."""

    boottime_ms: int
    wall_ms: int
    uncertainty_ms: int = NTP_ERROR_MS

    @property
    def offset_ms(self) -> int:
        """Wall time less boottime."""
        return self.wall_ms - self.boottime_ms


@dataclass
class Boot:
    """One boot of the gateway's machine; last_ms: the last moment known of it, once it is over."""

    gateway_boot_no: int
    boot_id: str
    last_ms: int = 0
    anchors: list[Anchor] = field(default_factory=list)


class Offset(msgspec.Struct, frozen=True, gc=False):
    """Wall time less boottime lies between the two; None: open."""

    low_ms: int | None
    high_ms: int | None

    @property
    def ends(self) -> tuple[int, int] | None:
        """Both ends, or None where one is open."""
        if self.low_ms is None or self.high_ms is None:
            return None
        return self.low_ms, self.high_ms


def drifted_ms(apart_ms: int) -> int:
    """Return how far the gateway's clock may run off in a time, cut upwards."""
    return abs(apart_ms) * DRIFT_PPM // 1_000_000 + 1


def offset_at(anchors: Sequence[Anchor], boottime_ms: int) -> tuple[int, int]:
    """Return the least and greatest offset at a moment by a boot's anchors, oldest first.

    At least one anchor is needed.
    """
    low, high = _by_one(anchors[-1], boottime_ms)
    for anchor in reversed(anchors[:-1]):
        least, most = _by_one(anchor, boottime_ms)
        if max(low, least) <= min(high, most):
            low, high = max(low, least), min(high, most)
    return low, high


def _by_one(anchor: Anchor, boottime_ms: int) -> tuple[int, int]:
    half = anchor.uncertainty_ms + drifted_ms(boottime_ms - anchor.boottime_ms)
    return anchor.offset_ms - half, anchor.offset_ms + half


def start_between(boots: Sequence[Boot], index: int) -> Offset:
    """Return the wall time at which boot `index`, without an anchor, began, by its neighbours.

    boots: in their order. It began after all that is known of the boots before, and ended before
    the boots after began.
    """
    low = high = None
    lived_ms = 0
    for boot in reversed(boots[:index]):
        lived_ms += _surely(boot.last_ms)
        if boot.anchors:
            by_start = offset_at(boot.anchors, 0)[0] + lived_ms
            end = boot.last_ms + offset_at(boot.anchors, boot.last_ms)[0]
            low = max(by_start, end + lived_ms - _surely(boot.last_ms))
            break
    lived_ms = 0
    for boot in boots[index:]:
        if boot.anchors:
            high = offset_at(boot.anchors, 0)[1] - lived_ms
            break
        lived_ms += _surely(boot.last_ms)
    return Offset(low, high)


def _surely(lived_ms: int) -> int:
    """Return the true time that surely passed while the gateway's clock counted lived_ms."""
    return lived_ms - drifted_ms(lived_ms) if lived_ms > 0 else 0


def offset_from(start: Offset, boottime_ms: int) -> Offset:
    """Return the offset at a moment of a boot that began, in wall time, within `start`."""
    wide = drifted_ms(boottime_ms)
    return Offset(
        None if start.low_ms is None else start.low_ms - wide,
        None if start.high_ms is None else start.high_ms + wide,
    )
