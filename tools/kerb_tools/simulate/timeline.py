"""The one clock of a simulation, and what the world has planned on it.

Rule: time moves only here; what is planned for one moment happens in the order of its planning.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

YEAR_S = 365 * 86400.0


class Crash(SystemExit):
    """The gateway's process is gone. A SystemExit, which asyncio lets through at once."""


class Stalled(RuntimeError):
    """Nobody waits for anything any more: the simulation itself is broken."""


class Timeline:
    """Seconds since the beginning, and the events to come."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def at(self, when_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Plan a call."""
        heapq.heappush(self._heap, (when_s, next(self._numbers), call, arguments))

    def after(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Plan a call `delay_s` from now."""
        self.at(self.now_s + delay_s, call, *arguments)

    def step(self) -> None:
        """Let the next planned thing happen, at its time."""
        if not self._heap:
            raise Stalled(f"nothing is planned after {self.now_s:.3f} s")
        when_s, _, call, arguments = heapq.heappop(self._heap)
        if when_s > self.now_s:
            self.now_s = when_s
        call(*arguments)
