"""The machine's clocks: one that never jumps, and wall time with how far to trust it.

Rule: order, retries and lifetimes use CLOCK_BOOTTIME; wall time is only ever written beside it.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


@dataclass(frozen=True)
class Moment:
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
        self.boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
        self._last = Moment(self.boot_id, -1, 0, "none")

    def boottime_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def now(self) -> Moment:
        # Within one millisecond all clocks stand still: a burst asks the kernel once.
        boottime_ms = self.boottime_ms()
        if boottime_ms != self._last.boottime_ms:
            wall_ms = time.time_ns() // 1_000_000
            self._last = Moment(self.boot_id, boottime_ms, wall_ms, _quality())
        return self._last


def _quality() -> str:
    """Ask the kernel whether anybody keeps its clock right (adjtimex with no changes)."""
    state = _adjtimex(ctypes.create_string_buffer(256))
    return "ntp" if 0 <= state < _TIME_ERROR else "none"
