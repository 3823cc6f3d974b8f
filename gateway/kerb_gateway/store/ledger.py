"""What ingest keeps in mind, loaded from the database and turned into operations on it.

Rule: every change of a stream (watermark, digests, gaps) and every reading, loss and outbox row
becomes part of one batch; whatever batch was not committed never happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kerb_gateway.clock import Moment
from kerb_gateway.model import Gap, Loss, Node, Payloads, Reading, Stream
from kerb_gateway.store.database import Operation, Store

_DIGEST_BYTES = 8
_SEQ_BYTES = 4

_READING_COLUMNS = (
    "stream_no",
    "seq",
    "kind",
    "record",
    "distance_mm",
    "sigma_mm",
    "quality",
    "temperature_dc",
    "battery_pct",
    "event",
    "flags",
    "backlog",
    "fill_pct",
    "level_pct",
    "reason",
    "faults",
    "outcome",
    "burn_min",
    "command_no",
    "boot_no",
    "uptime_s",
    "via",
    "auth",
    "boot_id",
    "boottime_ms",
    "wall_ms",
    "wall_quality",
)
_INSERT_READING = (
    f"insert into readings ({', '.join(_READING_COLUMNS)}) "
    f"values ({', '.join('?' * len(_READING_COLUMNS))})"
)


class Ledger:
    """Streams in memory and the operations that are not yet committed."""

    def __init__(self, store: Store, payloads: Payloads) -> None:
        self._store = store
        self._payloads = payloads
        self._operations: list[Operation] = []
        self._touched: dict[int, Stream] = {}
        self._counts: Counter[tuple[str, int]] = Counter()
        self._next_outbox = 1
        self._next_stream = 1
        self.streams: dict[tuple[str, int], Stream] = {}
        self.counters: Counter[str] = Counter()

    @classmethod
    async def load(cls, store: Store, payloads: Payloads, nodes: Iterable[Node]) -> Ledger:
        """Read everything that ingest needs to know from the database."""
        ledger = cls(store, payloads)
        by_no = {node.node_no: node for node in nodes}
        rows = await store.query("select stream_no, node_no, epoch, last_seq, recent from streams")
        numbered: dict[int, Stream] = {}
        for stream_no, node_no, epoch, last_seq, recent in rows:
            ledger._next_stream = max(ledger._next_stream, stream_no + 1)
            if node_no not in by_no:
                continue  # a node that the configuration no longer names: its history stays
            stream = Stream(stream_no, by_no[node_no], epoch, last_seq)
            _unpack_recent(stream, recent or b"")
            ledger.streams[(stream.node.node_id, epoch)] = stream
            numbered[stream_no] = stream
        for stream_no, first_seq, last_seq in await store.query(
            "select stream_no, first_seq, last_seq from gaps order by first_seq"
        ):
            if stream_no in numbered:
                numbered[stream_no].gaps.append(Gap(first_seq, last_seq))
        row = await store.query(
            "select max(coalesce((select max(outbox_no) from outbox), 0), "
            "coalesce((select max(outbox_no) from dead_letters), 0), "
            "coalesce((select cast(value as integer) from meta where key = 'outbox_last'), 0))"
        )
        ledger._next_outbox = row[0][0] + 1
        return ledger

    def newest_stream(self, node_id: str) -> Stream | None:
        """Return the node's stream that was begun last, or None."""
        mine = [stream for (node, _), stream in self.streams.items() if node == node_id]
        return max(mine, key=lambda stream: stream.stream_no) if mine else None

    def begin_stream(self, node: Node, epoch: int) -> Stream:
        """Open a stream for an epoch that an authenticated exchange has named."""
        stream = Stream(self._next_stream, node, epoch)
        self._next_stream += 1
        self.streams[(node.node_id, epoch)] = stream
        self._operations.append(
            (
                "insert into streams (stream_no, node_no, epoch, last_seq, recent) "
                "values (?,?,?,0,?)",
                [stream.stream_no, node.node_no, epoch, b""],
            )
        )
        return stream

    def touch(self, stream: Stream) -> None:
        """Note that a stream's watermark, digests or gaps have changed."""
        self._touched[stream.stream_no] = stream

    def add_reading(self, reading: Reading, moment: Moment) -> None:
        """Append a reading and its outbox row."""
        fields: dict[str, Any] = reading.fields | {
            "stream_no": reading.stream.stream_no,
            "seq": reading.seq,
            "kind": reading.kind,
            "boot_id": moment.boot_id,
            "boottime_ms": moment.boottime_ms,
            "wall_ms": moment.wall_ms,
            "wall_quality": moment.quality,
        }
        complete = Reading(reading.stream, reading.seq, reading.kind, fields)
        self._operations.append((_INSERT_READING, [fields.get(name) for name in _READING_COLUMNS]))
        topic, payload = self._payloads.reading(complete, self._next_outbox)
        self._send(topic, payload)
        self.touch(reading.stream)

    def add_loss(self, loss: Loss, boottime_ms: int) -> None:
        """Append a loss and its outbox row."""
        self._operations.append(
            (
                "insert into losses (stream_no, first_seq, last_seq, reason, boottime_ms) "
                "values (?,?,?,?,?)",
                [loss.stream.stream_no, loss.first_seq, loss.last_seq, loss.reason, boottime_ms],
            )
        )
        self._send(*self._payloads.loss(loss))
        self.touch(loss.stream)

    def add(self, operation: Operation) -> None:
        """Add an operation of another table to the batch."""
        self._operations.append(operation)

    def add_result(self, node_id: str, result: dict[str, Any]) -> None:
        """Append a command result's outbox row."""
        self._send(*self._payloads.result(node_id, result))

    def count(self, name: str, node_no: int = 0) -> None:
        """Count an event that is not a reading; 0: no particular node."""
        self._counts[(name, node_no)] += 1
        self.counters[name] += 1

    def _send(self, topic: str, payload: bytes) -> None:
        self._operations.append(
            ("insert into outbox values (?,?,?)", [self._next_outbox, topic, payload])
        )
        self._next_outbox += 1

    @property
    def waiting(self) -> int:
        """Operations that are not yet committed."""
        return len(self._operations) + len(self._counts) + len(self._touched)

    async def commit(self) -> None:
        """Commit everything gathered so far in one transaction; all of it or nothing."""
        operations, self._operations = self._operations, []
        touched, self._touched = self._touched, {}
        counts, self._counts = self._counts, Counter()
        for stream in touched.values():
            operations.extend(_stream_operations(stream))
        for (name, node_no), number in counts.items():
            operations.append(
                (
                    "insert into counters values (?,?,?) on conflict (name, node_no) "
                    "do update set value = value + excluded.value",
                    [name, node_no, number],
                )
            )
        if operations:
            operations.append(
                (
                    "insert into meta values ('outbox_last', ?) "
                    "on conflict (key) do update set value = excluded.value",
                    [str(self._next_outbox - 1)],
                )
            )
        await self._store.write(operations)


def _stream_operations(stream: Stream) -> list[Operation]:
    operations: list[Operation] = [
        (
            "update streams set last_seq = ?, recent = ? where stream_no = ?",
            [stream.last_seq, _pack_recent(stream), stream.stream_no],
        ),
        ("delete from gaps where stream_no = ?", [stream.stream_no]),
    ]
    for gap in stream.gaps:
        operations.append(
            (
                "insert into gaps (stream_no, first_seq, last_seq) values (?,?,?)",
                [stream.stream_no, gap.first_seq, gap.last_seq],
            )
        )
    return operations


def _pack_recent(stream: Stream) -> bytes:
    return b"".join(
        seq.to_bytes(_SEQ_BYTES, "little") + digest for seq, digest in stream.recent.items()
    )


def _unpack_recent(stream: Stream, packed: bytes) -> None:
    step = _SEQ_BYTES + _DIGEST_BYTES
    for at in range(0, len(packed) - step + 1, step):
        seq = int.from_bytes(packed[at : at + _SEQ_BYTES], "little")
        stream.remember(seq, packed[at + _SEQ_BYTES : at + step])
