"""Lives of nodes beside a gateway, with true time known: what `kerb bench time` judges.

Rule: the world here knows true time only; what the gateway may know (its own clocks, what a node
says, what is heard) is derived from it as the real parts derive it, and nothing else is handed on.

Within the stated bounds all of it happens: clocks that drift and change their drift, ticks that
wrap, reboots of node, machine and process, lost adverts and contacts, service mode, boot numbers
that come round, NTP that comes after days, goes, and steps, and a wall clock that jumps by years.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from kerb_gateway.clock import Moment
from kerb_gateway.timeline import SLEEPING_DRIFT

EPOCH_MS = 1_780_000_000_000  # true Unix time at the world's beginning
HOUR_MS = 3600_000
DAY_MS = 24 * HOUR_MS
_YEAR_MS = 365 * DAY_MS
_TICKS_PERIOD = 1 << 30  # of the port's ticks_ms
_QUARTZ = 90e-6
_SLEW = 500e-6  # adjtimex(2)
_SLEWED_MOST_MS = 400  # systemd-timesyncd steps what is more
_HOLD_MS = HOUR_MS  # after the last word of NTP the kernel's maxerror exceeds what counts as kept


class Ramp:
    """A clock that is right at no time: pieces of constant rate."""

    def __init__(self, start_ms: float, value_ms: float, rate: float) -> None:
        self._pieces: list[tuple[float, float, float]] = [(start_ms, value_ms, rate)]

    def turn(self, at_ms: float, rate: float) -> None:
        """Run at another rate from here on."""
        self._pieces.append((at_ms, self.at(at_ms), rate))

    def at(self, true_ms: float) -> float:
        """Return what it shows; before its beginning it runs as if it had always run true."""
        for start_ms, value_ms, rate in reversed(self._pieces):
            if true_ms >= start_ms:
                return value_ms + (true_ms - start_ms) * rate
        start_ms, value_ms, _ = self._pieces[0]
        return value_ms + (true_ms - start_ms)


@dataclass
class Machine:
    """One boot of the gateway's machine: its two clocks and what NTP does to them."""

    boot_id: str
    start_ms: float
    end_ms: float
    boottime: Ramp
    walls: list[tuple[float, float]] = field(default_factory=list)  # (from, wall less boottime)
    kept: list[tuple[float, float]] = field(default_factory=list)  # true times of NTP's care

    def moment(self, true_ms: float) -> Moment:
        """Return all clocks, as the gateway can read them."""
        boottime = self.boottime.at(true_ms)
        since_ms, offset = [one for one in self.walls if one[0] <= true_ms][-1]
        # The kernel takes its word back when somebody sets the clock.
        kept = [last for first, last in self.kept if first == since_ms]
        ntp = bool(kept) and true_ms <= kept[0] + _HOLD_MS
        return Moment(
            self.boot_id, int(boottime), int(boottime + offset), "ntp" if ntp else "none"
        )


def machines(rng: random.Random, life_ms: float) -> list[Machine]:
    """Return the boots of one gateway over a life: some with NTP late, lost, or never."""
    found: list[Machine] = []
    start_ms = -rng.uniform(0, DAY_MS)
    while start_ms < life_ms:
        length_ms = rng.choice((0.1, 0.5, 1, 3, 20)) * life_ms * rng.uniform(0.3, 1)
        end_ms = start_ms + length_ms
        found.append(_machine(rng, f"boot-{len(found)}", start_ms, end_ms))
        start_ms = end_ms + rng.choice((20_000.0, rng.uniform(60_000, DAY_MS)))
    return found


def _machine(rng: random.Random, boot_id: str, start_ms: float, end_ms: float) -> Machine:
    ramp = Ramp(start_ms, 0.0, 1 + rng.uniform(-_QUARTZ, _QUARTZ))
    machine = Machine(boot_id, start_ms, end_ms, ramp)
    # 1970, a time restored from a file, or nonsense: nobody keeps it right.
    wrong_ms = rng.choice((-EPOCH_MS, -rng.uniform(0, 30 * DAY_MS), rng.uniform(0, 9 * _YEAR_MS)))
    machine.walls.append((start_ms, EPOCH_MS + start_ms + wrong_ms))
    at_ms = start_ms + rng.choice((0.01, 0.2, 0.6, 2)) * rng.uniform(0.5, 1) * (end_ms - start_ms)
    while at_ms < end_ms:
        last_ms = min(end_ms, at_ms + rng.choice((0.1, 0.5, 1)) * (end_ms - start_ms))
        _keep_right(rng, machine, at_ms, last_ms)
        if last_ms >= end_ms:
            break
        ramp.turn(last_ms, 1 + rng.uniform(-_QUARTZ, _QUARTZ) / 2)
        at_ms = last_ms + rng.uniform(0.05, 0.5) * (end_ms - start_ms)
        if rng.random() < 0.5:  # somebody sets the clock, by years
            jump_ms = last_ms + rng.uniform(0, 1) * (at_ms - last_ms)
            machine.walls.append((jump_ms, rng.uniform(-40, 40) * _YEAR_MS + EPOCH_MS))
    return machine


def _keep_right(rng: random.Random, machine: Machine, first_ms: float, last_ms: float) -> None:
    """NTP steps the wall clock almost right and slews the rest of it away; both clocks feel it."""
    error_ms = rng.uniform(-_SLEWED_MOST_MS, _SLEWED_MOST_MS)
    boottime = machine.boottime.at(first_ms)
    machine.walls.append((first_ms, EPOCH_MS + first_ms + error_ms - boottime))
    machine.kept.append((first_ms, last_ms))
    machine.boottime.turn(first_ms, 1 - _SLEW if error_ms > 0 else 1 + _SLEW)
    settled_ms = min(last_ms, first_ms + abs(error_ms) / _SLEW)
    machine.boottime.turn(settled_ms, 1.0)


@dataclass(frozen=True)
class Made:
    """A record and the truth about it."""

    seq: int
    node_boot_no: int
    uptime_s: int
    measured_ms: float  # true time, somewhere in its burst
    on_air_ms: float  # true time of its advert's beginning
    service: bool


class NodeLife:
    """A node's clock and numbers, as the firmware keeps them."""

    def __init__(self, rng: random.Random, role: str, at_ms: float, beyond: float = 1.0) -> None:
        """beyond: times the stated bound of its drift."""
        self.role = role
        self._rng = rng
        self._bound = beyond * 0.98 * (SLEEPING_DRIFT if role == "bin" else _QUARTZ)
        self.boot_no = rng.choice((1, 300, 65534, 65535))
        self.last_seq = 0
        self.boot(at_ms)

    def boot(self, at_ms: float) -> None:
        """Start anew, after anything but a deep sleep; numbers go on behind the reserved block."""
        self.boot_no = (self.boot_no + 1) & 0xFFFF
        self.last_seq += self._rng.choice((0, self._rng.randrange(256)))
        self._drift = self._rng.uniform(-self._bound, self._bound)
        self._ticks = self._rng.choice((0, _TICKS_PERIOD - 5000, _TICKS_PERIOD // 2))
        self._total_ms = 0
        self._rest = 0.0
        self._at_ms = at_ms

    def uptime_s(self, at_ms: float) -> int:
        """Return what the node would say: ticks are counted, wrap, and are added up."""
        shift = self._rng.uniform(-0.3, 0.3) * self._bound
        self._drift = min(self._bound, max(-self._bound, self._drift + shift))
        passed = (at_ms - self._at_ms) * (1 + self._drift) + self._rest
        while passed >= 1:  # half a period at most between two looks
            step = min(int(passed), _TICKS_PERIOD // 2 - 1)
            after = (self._ticks + step) % _TICKS_PERIOD
            self._total_ms += (after - self._ticks) % _TICKS_PERIOD
            self._ticks = after
            passed -= step
        self._rest = passed
        self._at_ms = at_ms
        return self._total_ms // 1000

    def make(self, at_ms: float, *, service: bool = False) -> Made:
        """Measure from at_ms on and store a record; a lamp's is made at once."""
        burst_ms = self._rng.uniform(200, 2700) if self.role == "bin" else 0.0
        stamped_ms = at_ms + burst_ms
        uptime_s = self.uptime_s(stamped_ms)
        self.last_seq += 1
        on_air_ms = stamped_ms + self._rng.uniform(100, 900)
        measured_ms = at_ms + self._rng.uniform(0, burst_ms)
        return Made(self.last_seq, self.boot_no, uptime_s, measured_ms, on_air_ms, service)
