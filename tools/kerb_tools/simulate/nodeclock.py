"""A node's own clock: seconds since its boot, counted by an oscillator that runs off.

Rule: within the drift that docs/mqtt-topics.md states, and almost as far; it turns at each look.
"""

from __future__ import annotations

from random import Random

SLEEPING = 0.098  # deep sleep counts by an RC oscillator; 10 % are allowed for
AWAKE = 90e-6  # a quartz


class NodeClock:
    """Boot numbers, which come round, and the seconds of each boot."""

    def __init__(self, bound: float, random: Random) -> None:
        """bound: how far it may run off, as a share."""
        self._bound = bound
        self._random = random
        self.boot_no = random.choice((0, 300, 65533, 65535))
        self.boot(0.0)

    def boot(self, now_s: float) -> None:
        """Start anew, after anything but a deep sleep."""
        self.boot_no = (self.boot_no + 1) & 0xFFFF
        self.booted_s = self._looked_s = now_s
        self._uptime_s = 0.0
        self._drift = self._random.uniform(-self._bound, self._bound)

    def uptime_s(self, at_s: float) -> int:
        """Return what it counts at a moment that is not before the last look."""
        passed_s = at_s - self._looked_s
        if passed_s > 0:
            shift = self._random.uniform(-0.3, 0.3) * self._bound
            self._drift = min(self._bound, max(-self._bound, self._drift + shift))
            self._uptime_s += passed_s * (1 + self._drift)
            self._looked_s = at_s
        return int(self._uptime_s)
