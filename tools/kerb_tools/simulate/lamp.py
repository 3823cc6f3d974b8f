"""A lamp behind its registers: a log, one command at a time, and its own word for each outcome.

Rule: a command's outcome is in the log before a register shows it; a number is acted on once,
also across a loss of power.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from kerb_wire import records, registers
from kerb_wire.registers import CONTROL, STATUS
from kerb_wire.words import EVENTS, OUTCOMES, REASONS, code

from kerb_tools.simulate.nodeclock import AWAKE, NodeClock
from kerb_tools.simulate.nodelog import NodeLog

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Street

LOG_S = 900.0
_RING_ROWS = 320
_MIN_LEVEL_PCT = 5
_PERIODIC = code(EVENTS, "periodic")
_BOOT = code(EVENTS, "boot")
_COMMAND = code(EVENTS, "command")
_CALENDAR = code(REASONS, "calendar")
_OVERRIDE = code(REASONS, "override")
_APPLIED = code(OUTCOMES, "applied")
_EXPIRED = code(OUTCOMES, "expired")
_REFUSED = code(OUTCOMES, "refused")


class Lamp:
    """One lamp's state."""

    role = "lamp"

    def __init__(
        self, street: Street, house: House, node_id: str, root_key: bytes, random: Random
    ) -> None:
        """house: whose bus it hangs on."""
        self.house = house
        self.node_id = node_id
        self.root_key = root_key
        self.away_until_s = 0.0
        self.log = NodeLog(random.getrandbits(32), _RING_ROWS)
        self._street = street
        self._random = random
        self._clock = NodeClock(AWAKE, random)
        self._acked_seq = 0
        self._level_pct = 100
        self._reason = _CALENDAR
        self._command_no = 0
        self._outcome = 0

    def start(self) -> None:
        """Begin somewhere within the first interval."""
        self._street.timeline.after(self._random.uniform(0, LOG_S), self.tick)

    def tick(self) -> None:
        """Log the state, again and again, until the street has come to its rest."""
        if self._street.resting:
            return
        self._write(_PERIODIC)
        self._street.timeline.after(LOG_S * self._random.uniform(0.99, 1.01), self.tick)

    def _write(self, event: int, outcome: int = 0, command_no: int = 0) -> None:
        seq = self.log.take()
        now_s = self._street.timeline.now_s
        record = records.pack_lamp(
            self._clock.boot_no,
            seq,
            self._clock.uptime_s(now_s),
            self._level_pct,
            self._reason,
            0,
            event,
            outcome,
            int(now_s // 60),
            command_no,
        )
        self.log.append(seq, record)
        self._street.truth.measured(self.node_id, self.log.epoch, seq, record, now_s)

    # --- what befalls it ---

    def power_cut(self) -> None:
        """Its supply was gone for a moment."""
        self.log.power_cut()
        self._reboot()

    def brown_out(self) -> None:
        """Its supply was gone again and again."""
        self.log.brown_out(self._random.randint(1, 3))
        self._reboot()

    def new_epoch(self) -> None:
        """Its NVS was lost."""
        self.log.new_epoch(1 + self._random.getrandbits(31))
        self._reboot()

    def forgets(self, epoch: int) -> bool:
        """Tell whether nobody can ask for an epoch's records: its file holds the present one's."""
        return epoch != self.log.epoch

    def _reboot(self) -> None:
        self._clock.boot(self._street.timeline.now_s)
        self._acked_seq = 0
        self._reason = _CALENDAR
        self._write(_BOOT)

    # --- its registers ---

    def control(self, values: list[int]) -> list[int]:
        """Take a written control block; return the echo and the state behind it."""
        block = registers.unpack(CONTROL, values)
        if block["ack_epoch"]:
            self._acknowledge(block["ack_epoch"], block["ack_seq"])
        if block["new_command_no"]:
            self._command(block)
        return [block["echo"], *registers.pack(STATUS, self._status())]

    def _acknowledge(self, epoch: int, seq: int) -> None:
        self.house.judge.acknowledged(self.node_id, epoch, seq)
        if epoch == self.log.epoch and self._acked_seq < seq <= self.log.last_seq:
            self._acked_seq = seq

    def _command(self, block: dict[str, int]) -> None:
        number, level_pct = block["new_command_no"], block["new_level_pct"]
        if number == self._command_no:
            return
        if 0 < level_pct < _MIN_LEVEL_PCT:
            outcome = _REFUSED
        else:
            outcome = _APPLIED if block["new_life_s"] else _EXPIRED
        if outcome == _APPLIED:
            self._level_pct, self._reason = level_pct, _OVERRIDE
        self._command_no, self._outcome = number, outcome
        self._write(_COMMAND, outcome, number)
        self.house.judge.commands.ended_at_lamp(self.node_id, block, OUTCOMES[outcome])

    def _status(self) -> dict[str, int]:
        return {
            "map_version": registers.MAP_VERSION,
            "node_id": int(self.node_id, 16),
            "epoch": self.log.epoch,
            "boot_no": self._clock.boot_no,
            "uptime_s": self._clock.uptime_s(self._street.timeline.now_s),
            "first_seq": self.log.first_seq(),
            "last_seq": self.log.last_seq,
            "acked_seq": self._acked_seq,
            "level_pct": self._level_pct,
            "target_level_pct": self._level_pct,
            "reason": self._reason,
            "faults": 0,
            "burn_min": int(self._street.timeline.now_s // 60),
            "command_no": self._command_no,
            "command_outcome": self._outcome,
            "override_left_s": 0,
            "reset_cause": 1,
            "bad_frames": 0,
            "switch_count": 0,
        }

    def file(self, offset: int, count: int) -> list[bytes] | None:
        """Return `count` records from `offset` (seq modulo the file span) on, or None."""
        last_seq = self.log.last_seq
        first_seq = last_seq - (last_seq - offset) % registers.FILE_SPAN
        if first_seq < 1 or first_seq + count - 1 > last_seq:
            return None
        found = list(self.log.read(self.log.epoch, first_seq, first_seq + count - 1))
        return found + [found[-1]] * (count - len(found))
