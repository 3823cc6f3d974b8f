"""The `time` of a reading's message: the boottime axis, and wall time as far as it is known now.

Rule: what is not known is null; a wall time is never given without the range it lies in.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from kerb_gateway.anchor import NONE, NTP, Offset, drifted_ms
from kerb_gateway.clock import NTP_ERROR_MS
from kerb_gateway.model import Reading


class Offsets(Protocol):
    """What the boots of the gateway are known to have been, in wall time."""

    def offset(self, boot_id: str, boottime_ms: int) -> tuple[Offset, str]:
        """Return the wall clock's offset at a moment of a boot, and how it is known."""


class _Unknown:
    def offset(self, boot_id: str, boottime_ms: int) -> tuple[Offset, str]:
        return Offset(None, None), NONE


UNKNOWN: Offsets = _Unknown()


class Time(msgspec.Struct, gc=False):
    """A reading's time as it goes upstream."""

    boot_id: str
    boottime_ms: int
    wall_ms: int | None
    wall_quality: str
    quality: str
    t_min_ms: int | None
    t_ms: int | None
    t_max_ms: int | None
    utc_min_ms: int | None
    utc_ms: int | None
    utc_max_ms: int | None
    t_boot_id: str | msgspec.UnsetType = msgspec.UNSET  # where the span is another boot's


def time_of(reading: Reading, offsets: Offsets) -> Time:
    """Return a reading's time."""
    boot_id, boottime_ms, wall_ms = reading.boot_id, reading.boottime_ms, reading.wall_ms
    axis = reading.t_boot_id or boot_id
    span = (reading.t_min_ms, reading.t_ms, reading.t_max_ms)
    if reading.wall_quality == NTP and wall_ms is not None and axis == boot_id:
        quality, utc = NTP, _by_arrival(boottime_ms, wall_ms, span)
    else:
        quality, utc = _by_anchor(axis, boottime_ms, span, offsets)
    wall_quality = reading.wall_quality
    time = Time(boot_id, boottime_ms, wall_ms, wall_quality, quality, *span, *utc)
    if axis != boot_id:
        time.t_boot_id = axis
    return time


_Span = tuple[int | None, int | None, int | None]


def _by_arrival(boottime_ms: int, wall_ms: int, span: _Span) -> _Span:
    """The clock was right when it arrived: that moment is an anchor of its own."""
    low, middle, high = span
    offset_ms = wall_ms - boottime_ms
    return (
        None if low is None else low + offset_ms - _half(boottime_ms - low),
        None if middle is None else middle + offset_ms,
        None if high is None else high + offset_ms + _half(boottime_ms - high),
    )


def _half(apart_ms: int) -> int:
    return NTP_ERROR_MS + drifted_ms(apart_ms)


def _by_anchor(axis: str, boottime_ms: int, span: _Span, offsets: Offsets) -> tuple[str, _Span]:
    low, middle, high = span
    known, quality = offsets.offset(axis, boottime_ms if high is None else high)
    first = known if low is None or low == high else offsets.offset(axis, low)[0]
    utc_min = None if low is None or first.low_ms is None else low + first.low_ms
    utc_max = None if high is None or known.high_ms is None else high + known.high_ms
    utc, ends = None, known.ends
    if middle is not None and ends is not None:
        utc = middle + (ends[0] + ends[1]) // 2
        # The two ends have offsets of their own.
        utc = max(utc if utc_min is None else utc_min, utc)
        utc = min(utc if utc_max is None else utc_max, utc)
    return quality, (utc_min, utc, utc_max)
