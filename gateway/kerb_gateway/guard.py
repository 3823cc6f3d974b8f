"""Bounds how many forged adverts are tried against a node's key.

Rule: after `limit` wrong MICs of one address within a window, nothing from that address is
verified for the rest of the window. Only addresses of configured nodes are known here, so invented
ones cost no memory. docs/threat-model.md says what that means for a forgery.
"""

from __future__ import annotations

from dataclasses import dataclass

_ASK_MS = 60_000


@dataclass
class _Window:
    begun_ms: int
    wrong: int = 0
    closed: int = 0  # windows in a row that ended closed, this one included
    asked_ms: int | None = None


class Guard:
    """Counts wrong MICs by address; times are boottime."""

    def __init__(self, *, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_ms = int(window_s * 1000)
        self._windows: dict[str, _Window] = {}

    @property
    def idle(self) -> bool:
        """Tell whether there is nothing to look up: no wrong MIC in memory."""
        return not self._windows

    def closed(self, address: str, now_ms: int) -> bool:
        """Tell whether adverts of this address are not verified now."""
        window = self._windows.get(address)
        if window is None or window.wrong < self._limit:
            return False
        return now_ms - window.begun_ms < self._window_ms

    def wrong(self, address: str, now_ms: int) -> int:
        """Note a wrong MIC; returns which window in a row is closed by it, 0: none is."""
        window = self._windows.get(address)
        if window is None or now_ms - window.begun_ms >= self._window_ms:
            window = self._next(window, now_ms)
            self._windows[address] = window
        window.wrong += 1
        if window.wrong != self._limit:
            return 0
        window.closed += 1
        return window.closed

    def _next(self, before: _Window | None, now_ms: int) -> _Window:
        """Begin a window; the count of closed ones goes on if the one before was closed."""
        if before is None or before.wrong < self._limit:
            return _Window(now_ms)
        follows = now_ms - before.begun_ms < 2 * self._window_ms
        return _Window(now_ms, closed=before.closed if follows else 0)

    def asks(self, address: str, now_ms: int) -> bool:
        """Tell, about once a minute, that a closed address's node should be called on itself."""
        window = self._windows[address]
        if window.asked_ms is not None and now_ms - window.asked_ms < _ASK_MS:
            return False
        window.asked_ms = now_ms
        return True

    def forgive(self, address: str) -> None:
        """Forget an address: its node has proven that it has another key now."""
        self._windows.pop(address, None)
