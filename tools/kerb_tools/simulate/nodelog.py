"""A node's memory: its numbers, and a ring of records that overwrites the oldest.

Rule: a number is used once in an epoch; what the ring cannot give any more is said as a LOST
record with its reason, as the firmware does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kerb_wire import records
from kerb_wire.limits import SEQ_BLOCK
from kerb_wire.words import LOSSES, code

_OVERWRITTEN = code(LOSSES, "overwritten")
_UNUSED = code(LOSSES, "unused")
_CRC = code(LOSSES, "crc")


class NodeLog:
    """Sequence numbers and records of the epoch that is now; earlier epochs are told apart."""

    def __init__(self, epoch: int, rows: int) -> None:
        self.epoch = epoch
        self._rows = rows
        self._next_seq = 1
        self._block_end = 1
        self._order: deque[tuple[int, int]] = deque()
        self._kept: dict[tuple[int, int], bytes] = {}
        self._damaged: set[tuple[int, int]] = set()
        self._overwritten_seq: dict[int, int] = {}

    @property
    def last_seq(self) -> int:
        """The newest number used or skipped."""
        return self._next_seq - 1

    def first_seq(self) -> int:
        """Return the oldest number of this epoch in the ring, or the next one."""
        return next((seq for epoch, seq in self._order if epoch == self.epoch), self._next_seq)

    def take(self) -> int:
        """Return the next number; a block is reserved before its first use."""
        if self._next_seq >= self._block_end:
            self._block_end = self._next_seq + SEQ_BLOCK
        self._next_seq += 1
        return self._next_seq - 1

    def power_cut(self) -> None:
        """The count goes on behind the reserved block."""
        self._next_seq = self._block_end

    def brown_out(self, times: int) -> None:
        """The power goes again and again, each time after a block was reserved."""
        self._next_seq = self._block_end = self._block_end + times * SEQ_BLOCK

    def new_epoch(self, epoch: int) -> None:
        """NVS was lost: numbers begin anew under another epoch."""
        self.epoch = epoch
        self._next_seq = self._block_end = 1

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
