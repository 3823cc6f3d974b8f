"""The rows of one transaction: readings, outbox rows, moved streams, counts and single operations.

Rule: a batch is written whole or stays whole; one that could not be written takes what came since
behind it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kerb_gateway.model import Origin, Reading, Stream
from kerb_gateway.store.database import Inserts, Many, Operation

_INSERT_READING = (
    f"insert into readings ({', '.join(Reading.__struct_fields__)}) "
    f"values ({', '.join('?' * len(Reading.__struct_fields__))})"
)
_INSERT_OUTBOX = "insert into outbox (outbox_no, kind, row_no, topic, payload) values (?,?,?,?,?)"
_COUNT = (
    "insert into counters values (?,?,?) on conflict (name, node_no) "
    "do update set value = value + excluded.value"
)
_MOVE_STREAM = (
    "update streams set last_seq = ?, stored = ?, lost = ?, elsewhere = ? where stream_no = ?"
)


@dataclass
class Batch:
    """What one transaction will hold, as it grows."""

    operations: list[Operation] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    outbox: list[list[Any]] = field(default_factory=list)
    content: dict[int, tuple[Origin, Reading]] = field(default_factory=dict)
    touched: dict[int, Stream] = field(default_factory=dict)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    written: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows that it adds or changes."""
        rows = len(self.operations) + len(self.readings) + len(self.outbox)
        return rows + len(self.touched) + len(self.counts)

    def followed_by(self, later: Batch) -> Batch:
        """Return this batch, which could not be written, with what came since behind it."""
        return Batch(
            self.operations + later.operations,
            self.readings + later.readings,
            self.outbox + later.outbox,
            self.content | later.content,
            self.touched | later.touched,
            self.counts + later.counts,
        )

    def all_operations(self) -> list[Operation]:
        """Return what writes it."""
        operations = list(self.operations)
        if self.readings:
            operations.append(Inserts(_INSERT_READING, self.readings, msgspec.structs.astuple))
        if self.outbox:
            operations.append(Inserts(_INSERT_OUTBOX, list(self.outbox)))
        if self.touched:
            moved = [
                [s.last_seq, s.stored, s.lost, s.elsewhere, s.stream_no]
                for s in self.touched.values()
            ]
            operations.append(Many(_MOVE_STREAM, moved))
        for stream in self.touched.values():
            operations.extend(self._gaps(stream))
        if self.counts:
            rows = [[name, node_no, number] for (name, node_no), number in self.counts.items()]
            operations.append(Many(_COUNT, rows))
        return operations

    def _gaps(self, stream: Stream) -> list[Operation]:
        operations: list[Operation] = []
        ranges = stream.ranges()
        if ranges != stream.written_gaps:
            self.written[stream.stream_no] = ranges
            operations.append(("delete from gaps where stream_no = ?", [stream.stream_no]))
            rows = [[stream.stream_no, first, last] for first, last in ranges]
            operations.append(
                Many("insert into gaps (stream_no, first_seq, last_seq) values (?,?,?)", rows)
            )
        return operations
