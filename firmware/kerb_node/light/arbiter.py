"""Who sets the level: an override while it lasts, else the fail-safe, and always with its reason.

Rule: an override has an expiry; a gateway that is silent too long ends nobody's override, but
what follows it is the fail-safe level.
"""

from kerb_wire.words import REASONS, code

START = code(REASONS, "start")
OVERRIDE = code(REASONS, "override")
FAIL_SAFE = code(REASONS, "fail_safe")


class Arbiter:
    """Holds the override; times are milliseconds of the node's uptime."""

    def __init__(self, fail_safe_level_pct, silence_ms):
        self._fail_safe_level_pct = fail_safe_level_pct
        self._silence_ms = silence_ms
        self._override_pct = None
        self._until_ms = 0
        self._heard_ms = 0

    def override(self, level_pct, until_ms):
        """Burn at level_pct until until_ms."""
        self._override_pct = level_pct
        self._until_ms = until_ms

    def heard(self, now_ms):
        """The gateway has spoken to this unit."""
        self._heard_ms = now_ms

    def left_s(self, now_ms):
        """Return how long the override still lasts, in whole seconds, rounded up; 0: none."""
        if self._override_pct is None or now_ms >= self._until_ms:
            return 0
        return (self._until_ms - now_ms + 999) // 1000

    def decide(self, now_ms):
        """Return (level_pct, reason) for this moment."""
        if self._override_pct is not None:
            if now_ms < self._until_ms:
                return self._override_pct, OVERRIDE
            self._override_pct = None
        if now_ms - self._heard_ms >= self._silence_ms:
            return self._fail_safe_level_pct, FAIL_SAFE
        # Without a calendar in the node there is nothing else to follow: the same level, but
        # the reason says that the gateway is there.
        return self._fail_safe_level_pct, START
