"""The lamp behind its registers: reads and writes of the map in kerb_wire.registers.

Rule: addresses come from the table alone; a write reaches the lamp only with its echo token, so
that a half-written command is never acted on.
"""

from kerb_wire import registers
from kerb_wire.registers import (
    CONTROL,
    CONTROL_START,
    CONTROL_WORDS,
    DEVICE_OBJECT_NODE_ID,
    DEVICE_PRODUCT,
    DEVICE_VENDOR,
    STATUS,
    STATUS_WORDS,
)

_REVISION = "0.1"


class LampRegisters:
    """What ModbusServer calls its device."""

    def __init__(self, lamp, log):
        self._lamp = lamp
        self._log = log
        self._control = [0] * CONTROL_WORDS

    def identity(self):
        """Return {object number: text} of the device identification; no gaps in its basic part."""
        return {
            0: DEVICE_VENDOR,
            1: DEVICE_PRODUCT,
            2: _REVISION,
            DEVICE_OBJECT_NODE_ID: self._lamp.node_id.hex(),
        }

    def _status(self):
        lamp = self._lamp
        return registers.pack(
            STATUS,
            {
                "map_version": registers.MAP_VERSION,
                "node_id": int.from_bytes(lamp.node_id, "big"),
                "epoch": lamp.epoch,
                "boot_no": lamp.boot_no,
                "uptime_s": lamp.uptime_s(),
                "first_seq": self._log.first_seq(),
                "last_seq": lamp.last_seq,
                "acked_seq": lamp.acked_seq,
                "level_pct": lamp.level_pct,
                "target_level_pct": lamp.target_level_pct,
                "reason": lamp.reason,
                "faults": lamp.faults,
                "burn_min": lamp.burn_min(),
                "command_no": lamp.command_no,
                "command_outcome": lamp.command_outcome,
                "override_left_s": lamp.override_left_s(),
                "reset_cause": lamp.reset_cause(),
                "bad_frames": lamp.bad_frames,
                "switch_count": lamp.switch_count,
            },
        )

    def read_input(self, start, count):
        """Return `count` input registers from `start`, or None outside the map."""
        return self._status()[start : start + count] if start + count <= STATUS_WORDS else None

    def read_holding(self, start, count):
        """Return holding registers: the control block with the status mirrored behind it."""
        offset = start - CONTROL_START
        if offset < 0 or offset + count > CONTROL_WORDS + STATUS_WORDS:
            return None
        values = self._control
        if offset + count > CONTROL_WORDS:
            values = values + self._status()
        return values[offset : offset + count]

    def write_holding(self, start, values):
        """Take control registers; False outside of them. The last one, echo, sets them off."""
        offset = start - CONTROL_START
        if offset < 0 or offset + len(values) > CONTROL_WORDS:
            return False
        self._control[offset : offset + len(values)] = values
        if offset + len(values) == CONTROL_WORDS:
            self._act()
        return True

    def _act(self):
        control = registers.unpack(CONTROL, self._control)
        if control["ack_epoch"]:
            self._lamp.acknowledge(control["ack_epoch"], control["ack_seq"])
        if control["new_command_no"]:
            self._lamp.command(
                control["new_command_no"],
                control["new_level_pct"],
                control["new_fade_ms"],
                control["new_hold_s"],
                control["new_life_s"],
            )
        # A token that is written alone must not repeat what was asked before.
        self._control = [0] * (CONTROL_WORDS - 1) + [self._control[-1]]

    def records(self, offset, count):
        """Return `count` records of the log from `offset` (seq modulo the file span) on, or None.

        None for numbers that are not used yet: they are not lost, they have yet to come.
        A lost run is one record; it stands for its numbers, and the rest of the answer repeats
        it, so that every answer has the length that was asked for.
        """
        last_seq = self._lamp.last_seq
        first = last_seq - (last_seq - offset) % registers.FILE_SPAN
        if first < 1 or first + count - 1 > last_seq:
            return None
        found = list(self._log.read(self._lamp.epoch, first, first + count - 1))
        while len(found) < count:
            found.append(found[-1])
        return found
