"""The clocks of a gateway's machine, which has no RTC: as wrong as they may be, and no more.

Rule: true time is the timeline's; what the gateway may know is derived from it, within the bounds
that docs/mqtt-topics.md states (100 ppm, NTP to within 2 s). Each boot's axis is kept, so that the
judge can say where on it a moment lay.
"""

from __future__ import annotations

from random import Random

from kerb_gateway.clock import Moment

from kerb_tools.bench.lives import EPOCH_MS, Ramp
from kerb_tools.simulate.timeline import YEAR_S, Timeline

_QUARTZ = 90e-6
_HOLDOVER = 45e-6  # by how much the quartz runs off right after NTP has trimmed it
_SLEW = 500e-6  # adjtimex(2)
_SLEWED_MOST_MS = 400  # systemd-timesyncd steps what is more
_HOLD_MS = 3600_000  # for so long after NTP's last word the kernel says that the clock is kept
_BOOTED_S = (15.0, 90.0)  # a machine has lived that long before its gateway starts
_NEVER = 0.12
# After how long NTP arrives: (weight, from, to).
_LATE = ((5, 20.0, 600.0), (3, 600.0, 6 * 3600.0), (2, 6 * 3600.0, 4 * 86400.0))
_KEPT_S = 4 * 86400.0
_LOST_S = 12 * 3600.0
_JUMP_S = 5 * 86400.0
_MINUTES_S = (30.0, 900.0)


class Machine:
    """One machine through all its boots."""

    def __init__(self, timeline: Timeline, name: str, random: Random) -> None:
        self._timeline = timeline
        self._name = name
        self._random = random
        self._boots = 0
        self._axes: dict[str, Ramp] = {}
        self.boot()

    # --- what happens to it ---

    def boot(self) -> None:
        """Start anew: another boot_id, CLOCK_BOOTTIME from zero, a wall clock that is restored,
        of 1970, or nonsense.
        """
        random, now_ms = self._random, self._timeline.now_s * 1000
        self._boots += 1
        self.boot_id = f"{self._name}-{self._boots}"
        self._since_ms, self._value_ms = now_ms, random.uniform(*_BOOTED_S) * 1000
        self._rate = 1 + random.uniform(-_QUARTZ, _QUARTZ)
        self._axes[self.boot_id] = Ramp(now_ms, self._value_ms, self._rate)
        self._kept_until_ms = -1.0
        restored_ms = now_ms - random.uniform(0, 30 * 86400_000)
        wrong_ms = random.choice((-EPOCH_MS, restored_ms, now_ms + 9000 * YEAR_S))
        self._offset_ms = EPOCH_MS + wrong_ms - self._value_ms
        if random.random() >= _NEVER:
            weights = [weight for weight, _, _ in _LATE]
            _, low_s, high_s = random.choices(_LATE, weights)[0]
            self._after(random.uniform(low_s, high_s), self._ntp_comes)
        self._after(random.expovariate(1 / _JUMP_S), self._jumps)

    def _after(self, delay_s: float, call: object) -> None:
        """Plan something for this boot; another one knows nothing of it."""
        self._timeline.after(delay_s, self._happen, self._boots, call)

    def _happen(self, boot: int, call: object) -> None:
        if boot == self._boots:
            call()  # type: ignore[operator]

    def _turn(self, rate: float) -> None:
        now_ms = self._timeline.now_s * 1000
        self._value_ms += (now_ms - self._since_ms) * self._rate
        self._since_ms, self._rate = now_ms, rate
        self._axes[self.boot_id].turn(now_ms, rate)

    def _ntp_comes(self) -> None:
        """NTP steps the wall clock almost right and slews the rest away; both clocks feel it."""
        error_ms = self._random.uniform(-_SLEWED_MOST_MS, _SLEWED_MOST_MS)
        self._turn(1 - _SLEW if error_ms > 0 else 1 + _SLEW)
        self._offset_ms = EPOCH_MS + self._since_ms + error_ms - self._value_ms
        self._kept_until_ms = float("inf")
        self._after(abs(error_ms) / _SLEW / 1000, self._is_right)
        self._after(self._random.expovariate(1 / _KEPT_S), self._ntp_goes)

    def _is_right(self) -> None:
        if self._kept_until_ms == float("inf"):
            self._turn(1.0)

    def _ntp_goes(self) -> None:
        if self._kept_until_ms != float("inf"):
            return
        self._turn(1 + self._random.uniform(-_HOLDOVER, _HOLDOVER))
        self._kept_until_ms = self._since_ms + _HOLD_MS
        self._after(self._random.expovariate(1 / _LOST_S), self._ntp_comes)

    def _jumps(self) -> None:
        """Somebody sets the clock by years; where NTP is there, it mends that in minutes."""
        if self._kept_until_ms == float("inf"):
            self._turn(1 + self._random.uniform(-_HOLDOVER, _HOLDOVER))
            self._after(self._random.uniform(*_MINUTES_S), self._ntp_comes)
        self._kept_until_ms = -1.0
        self._offset_ms += self._random.uniform(-40, 40) * YEAR_S * 1000
        self._after(self._random.expovariate(1 / _JUMP_S), self._jumps)

    # --- what the gateway asks ---

    def boottime_ms(self) -> int:
        return int(self._value_ms + (self._timeline.now_s * 1000 - self._since_ms) * self._rate)

    def now(self) -> Moment:
        now_ms = self._timeline.now_s * 1000
        boottime = self._value_ms + (now_ms - self._since_ms) * self._rate
        quality = "ntp" if now_ms <= self._kept_until_ms else "none"
        return Moment(self.boot_id, int(boottime), int(boottime + self._offset_ms), quality)

    # --- what the judge asks ---

    def on_axis(self, boot_id: str, true_s: float) -> float:
        """Return where a true moment lies on a boot's axis, in milliseconds."""
        return self._axes[boot_id].at(true_s * 1000)
