"""The machine's clocks: one that never jumps, and wall time with how far to trust it.

Rule: order, retries and lifetimes use CLOCK_BOOTTIME; wall time is only ever written beside it.
"""

from __future__ import annotations

import ctypes
import time
import uuid
from pathlib import Path
from typing import Protocol

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
NTP_ERROR_MS = 2000  # a wall clock that may be further off does not count as kept right
_TRIES = 5
_TOGETHER_NS = 2_000_000  # what the readings of two clocks may lie apart


class _Timeval(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long)]


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); `modes` zero: it only reads."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("rest", ctypes.c_char * 128),  # more than any release has behind it
    ]


_adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex


class Moment(msgspec.Struct, frozen=True, gc=False):
    """boot_id and boottime_ms say when; wall_ms (Unix, UTC) is as good as `quality` says."""

    boot_id: str
    boottime_ms: int
    wall_ms: int
    quality: str  # none | ntp


class Clock(Protocol):
    """What the gateway asks of time."""

    def boottime_ms(self) -> int:
        """Milliseconds since the machine started, suspends included."""

    def now(self) -> Moment:
        """This moment in all clocks."""


class SystemClock:
    """The clocks of this machine."""

    def __init__(self) -> None:
        # Without a name for the boot each process is its own: nothing is ever taken for known.
        self.boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(uuid.uuid4())
        self._last = Moment(self.boot_id, -1, 0, "none")

    def boottime_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def now(self) -> Moment:
        # Within one millisecond all clocks stand still: a burst asks the kernel once.
        if self.boottime_ms() != self._last.boottime_ms:
            boottime_ns, wall_ns = _together()
            self._last = Moment(
                self.boot_id, boottime_ns // 1_000_000, wall_ns // 1_000_000, _quality()
            )
        return self._last


def _together() -> tuple[int, int]:
    """Return (CLOCK_BOOTTIME, wall time) of one moment, in nanoseconds.

    Between the two readings another process may run; then they are read again.
    """
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if after - before <= _TOGETHER_NS:
            break
    return (before + after) // 2, wall


def quality_of(state: int, maxerror_us: int) -> str:
    """Return what adjtimex(2) says of the wall clock.

    The kernel takes its word back at every settimeofday, so a clock that was only restored at boot
    (fake-hwclock, systemd-timesyncd's saved time, a person's `date -s`) is `none` until NTP sets
    it; and it lets the error grow while nobody corrects the clock.
    """
    kept = 0 <= state < _TIME_ERROR and maxerror_us <= 1000 * NTP_ERROR_MS
    return "ntp" if kept else "none"


def _quality() -> str:
    """Ask the kernel whether anybody keeps its clock right (adjtimex with no changes)."""
    buffer = _Timex()
    state = _adjtimex(ctypes.byref(buffer))
    return quality_of(state, buffer.maxerror)
