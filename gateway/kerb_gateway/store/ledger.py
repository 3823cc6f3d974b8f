"""What ingest keeps in mind, loaded from the database and turned into operations on it.

Rule: every change of a stream (watermark, digests, gaps) and every reading, loss and outbox row
becomes part of one batch; whatever batch was not committed never happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from kerb_gateway.clock import Moment
from kerb_gateway.errors import StoreError
from kerb_gateway.model import RECENT_DIGESTS, Gap, Loss, Node, Origin, Payloads, Reading, Stream
from kerb_gateway.store.batch import Batch
from kerb_gateway.store.clock_anchors import ClockAnchors
from kerb_gateway.store.contacts import Contacts
from kerb_gateway.store.database import Operation, Store
from kerb_gateway.store.outbox import LOSS, MESSAGE, READING, Outbox, Outgoing, dead_letter

Log = Callable[..., Any]

TAIL = "tail unknown"
_REMEMBER = "insert into meta values (?,?) on conflict (key) do update set value = excluded.value"


class Ledger:
    """Streams in memory and the operations that are not yet committed."""

    def __init__(self, store: Store, payloads: Payloads, log: Log) -> None:
        self._store = store
        self._payloads = payloads
        self._log = log
        self.outbox = Outbox(store, payloads)
        self._batch = Batch()
        self._next_outbox = 1
        self._next_stream = 1
        self.next_reading_no = 1
        self._next_loss = 1
        self._wrong: dict[int, int] = {}
        self.streams: dict[tuple[str, int], Stream] = {}
        self.anchors = ClockAnchors()
        self.contacts = Contacts()
        self._newest: dict[str, Stream] = {}
        self._of_node: dict[str, list[Stream]] = {}
        self.held: set[str] = set()  # nodes that have not said their number since a restore
        self.counters: Counter[str] = Counter()

    @classmethod
    async def load(
        cls, store: Store, payloads: Payloads, nodes: Iterable[Node], log: Log
    ) -> Ledger:
        """Read everything that ingest needs to know from the database."""
        ledger = cls(store, payloads, log)
        by_no = {node.node_no: node for node in nodes}
        numbered: dict[int, Stream] = {}
        for stream_no, node_no, epoch, *numbers in await store.query(
            "select stream_no, node_no, epoch, last_seq, stored, lost from streams"
        ):
            ledger._next_stream = max(ledger._next_stream, stream_no + 1)
            if node_no not in by_no:
                continue  # a node that the configuration no longer names: its history stays
            stream = Stream(stream_no, by_no[node_no], epoch, *numbers)
            ledger._know(stream)
            numbered[stream_no] = stream
        for stream_no, first_seq, last_seq in await store.query(
            "select stream_no, first_seq, last_seq from gaps order by first_seq"
        ):
            if stream_no in numbered:
                numbered[stream_no].gaps.append(Gap(first_seq, last_seq))
        for stream_no, elsewhere in await store.query(
            "select stream_no, elsewhere from streams where elsewhere > 0"
        ):
            if stream_no in numbered:
                numbered[stream_no].elsewhere = elsewhere
        held = await store.query("select node_id from nodes join held_nodes using (node_no)")
        ledger.held = {row[0] for row in held}
        for (stream_no,) in await store.query("select stream_no from streams where held"):
            if stream_no in numbered:
                numbered[stream_no].held = True
        for stream in numbered.values():
            stream.written_gaps = stream.ranges()
        await ledger._load_tails(numbered)
        await ledger._load_digests(numbered)
        await ledger._load_numbers()
        ledger.anchors = await ClockAnchors.load(store)
        ledger.contacts = await Contacts.load(store, numbered.values())
        await ledger.outbox.load()
        return ledger

    async def _load_digests(self, numbered: dict[int, Stream]) -> None:
        """Fill the recent windows from the newest readings: the end of the table only."""
        rows = await self._store.query(
            "select stream_no, seq, digest from readings order by reading_no desc limit ?",
            [RECENT_DIGESTS * max(1, len(numbered))],
        )
        for stream_no, seq, digest in reversed(rows):
            if stream_no in numbered and digest is not None:
                numbered[stream_no].remember(seq, digest)

    async def _load_tails(self, numbered: dict[int, Stream]) -> None:
        """Read which open-ended losses stand."""
        for stream_no, loss_no, first_seq in await self._store.query(
            "select stream_no, loss_no, first_seq from losses "
            "where last_seq is null and closed_seq is null and reason = ? order by loss_no",
            [TAIL],
        ):
            if stream_no in numbered:
                numbered[stream_no].tail_no = loss_no
                numbered[stream_no].tail_seq = first_seq

    async def _load_numbers(self) -> None:
        """Go on after the highest number of each kind that was ever used."""
        for table, key, attribute in (
            ("readings", "reading_no", "next_reading_no"),
            ("losses", "loss_no", "_next_loss"),
        ):
            rows = await self._store.query(f"select coalesce(max({key}), 0) from {table}")
            setattr(self, attribute, rows[0][0] + 1)
        rows = await self._store.query(
            "select max(coalesce((select max(outbox_no) from outbox), 0), "
            "coalesce((select max(outbox_no) from dead_letters), 0), "
            "coalesce((select cast(value as integer) from meta where key = 'outbox_last'), 0))"
        )
        self._next_outbox = rows[0][0] + 1

    def newest_stream(self, node_id: str) -> Stream | None:
        """Return the node's stream that was begun last, or None."""
        return self._newest.get(node_id)

    def _know(self, stream: Stream) -> None:
        node_id = stream.node.node_id
        self.streams[(node_id, stream.epoch)] = stream
        self._of_node.setdefault(node_id, []).append(stream)
        newest = self._newest.get(node_id)
        if newest is None or stream.stream_no > newest.stream_no:
            self._newest[node_id] = stream

    def older_streams(self, stream: Stream) -> list[Stream]:
        """Return the streams of the same node that were begun before, oldest first."""
        mine = self._of_node.get(stream.node.node_id, [])
        older = [one for one in mine if one.stream_no < stream.stream_no]
        return sorted(older, key=lambda one: one.stream_no)

    async def stored_stream(self, stream_no: int) -> Stream:
        """Return a stream of a node that the configuration names no more, as the file has it."""
        (row,) = await self._store.query(
            "select node_no, node_id, role, elsewhere, epoch, last_seq, stored, lost "
            "from streams join nodes using (node_no) where stream_no = ?",
            [stream_no],
        )
        node_no, node_id, role, elsewhere, *numbers = row
        stream = Stream(stream_no, Node(node_no, node_id, role, b""), *numbers)
        stream.elsewhere = elsewhere
        gaps = await self._store.query(
            "select first_seq, last_seq from gaps where stream_no = ? order by first_seq",
            [stream_no],
        )
        stream.gaps = [Gap(*row) for row in gaps]
        stream.written_gaps = stream.ranges()
        return stream

    def begin_stream(self, node: Node, epoch: int) -> Stream:
        """Open a stream for an epoch that an authenticated exchange has named."""
        stream = Stream(self._next_stream, node, epoch)
        self._next_stream += 1
        self._know(stream)
        self.add(
            (
                "insert into streams (stream_no, node_no, epoch, last_seq) values (?,?,?,0)",
                [stream.stream_no, node.node_no, epoch],
            )
        )
        return stream

    def touch(self, stream: Stream) -> None:
        """Note that a stream's watermark, counts or gaps have changed."""
        self._batch.touched[stream.stream_no] = stream

    def add_reading(self, stream: Stream, reading: Reading) -> None:
        """Append a reading, whose number is next_reading_no, and its outbox row."""
        self._know_boot(reading.boot_id)
        self._batch.readings.append(reading)
        self._batch.content[self._next_outbox] = (stream.origin, reading)
        self._send(READING, reading.reading_no)
        self.next_reading_no = reading.reading_no + 1
        stream.stored += 1
        self.touch(stream)

    def add_loss(self, loss: Loss, moment: Moment) -> None:
        """Append a loss and its outbox row."""
        self.add(
            (
                "insert into losses (loss_no, stream_no, first_seq, last_seq, reason, "
                "boot_id, boottime_ms, wall_ms, wall_quality, gw_epoch) "
                "values (?,?,?,?,?,?,?,?,?,?)",
                [
                    self._next_loss,
                    loss.stream.stream_no,
                    loss.first_seq,
                    loss.last_seq,
                    loss.reason,
                    moment.boot_id,
                    moment.boottime_ms,
                    moment.wall_ms,
                    moment.quality,
                    self._store.gw_epoch,
                ],
            )
        )
        self._send(LOSS, self._next_loss)
        self._next_loss += 1
        if loss.last_seq is not None:
            loss.stream.lost += loss.last_seq - loss.first_seq + 1
        self.touch(loss.stream)

    def open_tail(self, stream: Stream, moment: Moment) -> None:
        """Declare that nobody knows what comes after a stream's last number, once."""
        if stream.tail_no is not None:
            return
        stream.tail_no, stream.tail_seq = self._next_loss, stream.last_seq + 1
        self.add_loss(Loss(stream, stream.tail_seq, None, TAIL), moment)

    def close_tail(self, stream: Stream) -> None:
        """Take the tail back: the node was heard, all up to the last number is accounted for."""
        if stream.tail_no is None:
            return
        self.add(
            (
                "update losses set closed_seq = ? where loss_no = ?",
                [stream.last_seq, stream.tail_no],
            )
        )
        origin = Origin(stream.node.node_id, stream.epoch)
        self.add_found(origin, stream.tail_seq, stream.last_seq, TAIL, stream.tail_no)
        stream.tail_no = None

    def add(self, operation: Operation) -> None:
        """Add an operation of another table to the batch."""
        self._batch.operations.append(operation)

    def end_silence(self, stream: Stream) -> None:
        """A node is heard again: no later process may count on with a silence that is over."""
        stream.silence_noted = False
        self.add(("delete from silences where stream_no = ?", [stream.stream_no]))

    def add_result(self, node_id: str, result: dict[str, Any]) -> None:
        """Append a command result's outbox row."""
        self._send(MESSAGE, None, *self._payloads.result(node_id, result))

    def bury(self, message: Outgoing, reason: str) -> None:
        """Keep a message that the broker refused for good; a reading is declared `refused`."""
        self.add(dead_letter(message, reason))
        self.count("refused by the broker")
        if message.reading is not None:
            origin, seq = message.reading
            fields = {"first_seq": seq, "last_seq": seq, "reason": "refused"}
            fields["mark"] = message.outbox_no
            self._send(MESSAGE, None, *self._payloads.loss(origin, fields))

    def send_again(
        self, outbox_no: int, kind: str, row_no: int | None, topic: str, payload: bytes
    ) -> int:
        """Put a dead letter back into the outbox; returns its new number."""
        self.add(("delete from dead_letters where outbox_no = ?", [outbox_no]))
        self._send(kind, row_no, topic, payload)
        return self._next_outbox - 1

    def add_found(
        self,
        origin: Origin,
        first_seq: int,
        last_seq: int,
        reason: str,
        mark: int,
        gw_epoch: str | None = None,
    ) -> None:
        """Take a loss record back: its numbers are accounted for in another way now.

        mark: the loss_no of a tail, the number of a dead letter; gw_epoch: the one that the loss
        was said with, if a restore may have ended it since.
        """
        fields: dict[str, Any] = {"first_seq": first_seq, "last_seq": last_seq}
        fields |= {"reason": reason, "mark": mark, "gw_epoch": gw_epoch}
        self._send(MESSAGE, None, *self._payloads.found(origin, fields))

    def add_dropped(self, reading: tuple[Origin, int] | None, fields: dict[str, Any]) -> None:
        """Say upstream that a dead letter was given up."""
        self._send(MESSAGE, None, *self._payloads.dropped(reading, fields))

    def add_restored(self, fields: dict[str, Any], tails: Iterable[int]) -> None:
        """Say upstream that this is a restored backup, and again which tails stand.

        tails: the loss_no of each.
        """
        self._send(MESSAGE, None, *self._payloads.restored(fields))
        for loss_no in tails:
            self._send(LOSS, loss_no)

    def release(self, node: Node) -> None:
        """Believe adverts of a node again: an authenticated exchange has told its number."""
        if node.node_id not in self.held:
            return
        self.held.discard(node.node_id)
        self.add(("delete from held_nodes where node_no = ?", [node.node_no]))
        mine = [one for one in self.streams.values() if one.node is node and one.held]
        for stream in mine:
            stream.held = False
            self.add(("update streams set held = 0 where stream_no = ?", [stream.stream_no]))

    def add_alarm(self, where: str, alarm: dict[str, Any]) -> None:
        """Append an alarm's outbox row; where: a node_id, or "gateway"."""
        self._send(MESSAGE, None, *self._payloads.alarm(where, alarm))

    # --- time ---

    def _know_boot(self, boot_id: str) -> None:
        if not self.anchors.known(boot_id):
            for operation in self.anchors.begin(boot_id):
                self.add(operation)

    def keep_time(self, moment: Moment) -> int:
        """Look at the wall clock, now and then; returns how many records of it go upstream."""
        self._know_boot(moment.boot_id)
        operations, said = self.anchors.look(moment)
        for operation in operations:
            self.add(operation)
        for anchor in said:
            self._send(MESSAGE, None, *self._payloads.anchor(anchor))
        return len(said)

    def keep_contacts(self, moment: Moment, *, at_once: bool = False) -> None:
        """Let the contacts with the nodes' clocks be part of the batch, once an hour."""
        due = self.contacts.due(moment.boot_id, moment.boottime_ms, at_once=at_once)
        for operation in due:
            self.add(operation)

    def count(self, name: str, node_no: int = 0) -> None:
        """Count an event that is not a reading; 0: no particular node."""
        self._batch.counts[(name, node_no)] += 1
        self.counters[name] += 1

    def _send(
        self, kind: str, row_no: int | None, topic: str | None = None, payload: bytes | None = None
    ) -> None:
        self._batch.outbox.append([self._next_outbox, kind, row_no, topic, payload])
        self._next_outbox += 1

    @property
    def last_outbox_no(self) -> int:
        """The highest number given out, committed or not."""
        return self._next_outbox - 1

    @property
    def waiting(self) -> int:
        """Rows that are not yet committed."""
        return self._batch.size

    async def commit(self) -> None:
        """Commit everything gathered so far in one transaction; all of it or nothing.

        On StoreError it is all still waiting.
        """
        batch, self._batch = self._batch, Batch()
        for stream in batch.touched.values():
            self._check(stream, batch)
        operations = batch.all_operations()
        if batch.outbox:
            operations.append((_REMEMBER, ["outbox_last", str(batch.outbox[-1][0])]))
        operations += self.outbox.mark()
        try:
            await self._store.write(operations)
        except StoreError:
            self._batch = batch.followed_by(self._batch)
            raise
        for stream_no, ranges in batch.written.items():
            batch.touched[stream_no].written_gaps = ranges
        self.outbox.committed(batch.outbox, batch.content)

    def _check(self, stream: Stream, batch: Batch) -> None:
        """Raise an alarm when a stream's numbers do not add up, once for each difference."""
        wrong = stream.unexplained()
        if wrong == self._wrong.get(stream.stream_no, 0):
            return
        self._wrong[stream.stream_no] = wrong
        numbers = {
            "epoch": stream.epoch,
            "last_seq": stream.last_seq,
            "stored": stream.stored,
            "elsewhere": stream.elsewhere,
            "lost": stream.lost,
            "in_gaps": stream.missing(),
            "unexplained": wrong,
        }
        self._log("sequence numbers do not add up", node=stream.node.node_id, **numbers)
        self.count("sequence alarm", stream.node.node_no)
        topic, payload = self._payloads.alarm(
            stream.node.node_id, {"what": "sequence numbers do not add up"} | numbers
        )
        batch.outbox.append([self._next_outbox, MESSAGE, None, topic, payload])
        self._next_outbox += 1
