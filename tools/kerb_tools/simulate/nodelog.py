"""A node's memory: its numbers, and a ring of records that overwrites the oldest.

Rule: the numbers are the firmware's own (kerb_node/sequence.py on an NVS of ours); what the ring
cannot give any more is said as a LOST record with its reason, as the firmware does it.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerb_wire import records
from kerb_wire.words import LOSSES, code

_OVERWRITTEN = code(LOSSES, "overwritten")
_UNUSED = code(LOSSES, "unused")
_CRC = code(LOSSES, "crc")
_SEQUENCE = Path(__file__).parents[3] / "firmware" / "kerb_node" / "sequence.py"


def _numbering() -> Any:
    """Return the firmware's class of sequence numbers; the firmware is no package here."""
    spec = importlib.util.spec_from_file_location("kerb_node_sequence", _SEQUENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Sequence


_Sequence = _numbering()


class Nvs:
    """What outlives a loss of power."""

    def __init__(self) -> None:
        self._ints: dict[str, int] = {}

    def get_int(self, key: str, default: int) -> int:
        """Return what stands under a key."""
        return self._ints.get(key, default)

    def set_int(self, key: str, value: int) -> None:
        """Keep a number."""
        self._ints[key] = value


class NodeLog:
    """Sequence numbers and records of the epoch that is now; earlier epochs are told apart."""

    def __init__(self, epoch: int, rows: int) -> None:
        self.epoch = epoch
        self._rows = rows
        self._nvs = Nvs()
        self._numbers = _Sequence(self._nvs)
        self._order: deque[tuple[int, int]] = deque()
        self._kept: dict[tuple[int, int], bytes] = {}
        self._damaged: set[tuple[int, int]] = set()
        self._overwritten_seq: dict[int, int] = {}

    @property
    def last_seq(self) -> int:
        """The newest number used or skipped."""
        return int(self._numbers.last_seq)

    def first_seq(self) -> int:
        """Return the oldest number of this epoch in the ring, or the next one."""
        return next((seq for epoch, seq in self._order if epoch == self.epoch), self.last_seq + 1)

    def take(self) -> int:
        """Return the next number."""
        return int(self._numbers.take())

    def power_cut(self) -> None:
        """The count goes on behind the reserved block."""
        self._numbers = _Sequence(self._nvs)

    def brown_out(self, times: int) -> None:
        """The power goes again and again, each time after a block was reserved."""
        for _ in range(times):
            self.power_cut()
            self.take()
        self.power_cut()

    def new_epoch(self, epoch: int) -> None:
        """NVS was lost: numbers begin anew under another epoch."""
        self.epoch = epoch
        self._nvs = Nvs()
        self.power_cut()

    def append(self, seq: int, record: bytes) -> None:
        """Keep a record; the oldest goes when the ring is full."""
        if len(self._order) >= self._rows:
            epoch, gone = self._order.popleft()
            self._kept.pop((epoch, gone))
            self._overwritten_seq[epoch] = gone
        self._order.append((self.epoch, seq))
        self._kept[(self.epoch, seq)] = record

    def damage(self, place: float) -> None:
        """Let the row at `place` (0 to 1) of the ring fail its CRC."""
        if self._order:
            self._damaged.add(self._order[int(place * (len(self._order) - 1))])

    def some(self, place: float) -> bytes | None:
        """Return an undamaged record of this epoch from `place` of the ring, if there is one."""
        if not self._order:
            return None
        key = self._order[int(place * (len(self._order) - 1))]
        return self._kept[key] if key[0] == self.epoch and key not in self._damaged else None

    def reason(self, epoch: int, seq: int) -> int | None:
        """Return why a number cannot be given any more; None: it can."""
        key = (epoch, seq)
        if key in self._damaged:
            return _CRC
        if key in self._kept:
            return None
        return _OVERWRITTEN if seq <= self._overwritten_seq.get(epoch, 0) else _UNUSED

    def read(self, epoch: int, first_seq: int, last_seq: int) -> Iterator[bytes]:
        """Yield records in order; runs of what is gone as one LOST record each."""
        lost_from, lost_why = 0, None
        for seq in range(first_seq, last_seq + 1):
            why = self.reason(epoch, seq)
            if lost_why is not None and why != lost_why:
                yield records.pack_lost(lost_from, seq - 1, lost_why)
            if why is not None and why != lost_why:
                lost_from = seq
            lost_why = why
            if why is None:
                yield self._kept[(epoch, seq)]
        if lost_why is not None:
            yield records.pack_lost(lost_from, last_seq, lost_why)
