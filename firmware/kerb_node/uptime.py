"""Seconds since this boot's start, deep sleep included, from ticks that wrap.

Rule: ticks are only ever compared by difference, and often enough (at least once in 6.2 days,
half of their period of 2^30 ms).
"""


class Uptime:
    """Adds up tick differences; `ticks_ms` and `ticks_diff` are the port's functions."""

    def __init__(self, ticks_ms, ticks_diff, start_ms=0):
        """start_ms: what this boot had already lived when the chip woke."""
        self._ticks_ms = ticks_ms
        self._ticks_diff = ticks_diff
        self._last = ticks_ms()
        self._total_ms = start_ms

    def now_ms(self):
        """Return the milliseconds since the boot's start."""
        now = self._ticks_ms()
        self._total_ms += self._ticks_diff(now, self._last)
        self._last = now
        return self._total_ms

    def now_s(self):
        """Return the whole seconds since the boot's start."""
        return self.now_ms() // 1000


def slept_ms(planned_ms, before_ms, after_ms):
    """Return how long a deep sleep was, from a clock that runs through it (milliseconds).

    A pin may end a sleep early. A clock that was set, or lost, in between says something
    impossible; then the planned time is the best that is known.
    """
    passed_ms = after_ms - before_ms
    # The RC oscillator behind the sleep is off by some per cent; twice the plan is not drift.
    return passed_ms if 0 <= passed_ms <= 2 * planned_ms + 5000 else planned_ms
