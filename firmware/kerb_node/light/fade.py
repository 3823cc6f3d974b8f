"""A fade: from one level to another within a time, in whole per cent, without drift.

Rule: the level follows from the time that has passed, never from the number of steps made.
"""


class Fade:
    """Runs from start_pct to end_pct in duration_ms."""

    def __init__(self, start_pct, end_pct, duration_ms):
        self._start_pct = start_pct
        self.end_pct = end_pct
        self._duration_ms = duration_ms

    def level_pct(self, passed_ms):
        """Return the level passed_ms after the start."""
        passed_ms = max(0, passed_ms)
        if passed_ms >= self._duration_ms:
            return self.end_pct
        span = self.end_pct - self._start_pct
        return self._start_pct + span * passed_ms // self._duration_ms

    def done(self, passed_ms):
        """Tell whether the end has been reached."""
        return passed_ms >= self._duration_ms
