"""The judge: what nodes measured, what each COMMIT held, what arrived at the broker.

Rule: it knows the contract and the tables, not the gateway's code; the first thing that is not as
the contract says ends the run. Each number of each stream is at any crash exactly one of: stored,
declared lost, in an open gap, or not yet known to the gateway; what is stored arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from kerb_check.model import Finding
from kerb_wire import words
from kerb_wire.limits import JUMP_LIMIT

from kerb_tools.simulate.books import ARRIVED, LOST, SAID, STORED, UPSTREAM, Batch, Book
from kerb_tools.simulate.commandbook import CommandBook
from kerb_tools.simulate.content import is_same
from kerb_tools.simulate.identities import Identities
from kerb_tools.simulate.keys import is_loss, is_reading, key_of
from kerb_tools.simulate.timejudge import TimeJudge

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_TAIL = "tail unknown"
_YOUNG_S = 7200.0  # so long a stored reading is certainly among the recent digests
_decode = msgspec.json.Decoder().decode


class Found(SystemExit):
    """The run has shown something that the contract forbids."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(1)
        self.finding = finding


@dataclass
class Memory:
    """What is known when a backup is taken."""

    restores: int
    books: dict[tuple[str, int], tuple[bytes, int, float, int]]
    streams: dict[int, Book]
    waiting: dict[int, tuple[Any, ...]]
    numbers: dict[tuple[Any, ...], deque[int]]
    top_no: int


class Judge:
    """Sees everything, decides nothing of the run but its end."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._street = house.street
        self.commands = CommandBook(house, self.found)
        self.times = TimeJudge(house)
        self.identities = Identities(self.found)
        self._books: dict[tuple[str, int], Book] = {}
        self._streams: dict[int, Book] = {}
        self._waiting: dict[int, tuple[Any, ...]] = {}  # outbox_no -> what must arrive
        self._numbers: dict[tuple[Any, ...], deque[int]] = {}  # the same, the other way round
        self._newest_no: dict[str, int] = {}  # of each gw_epoch
        self._gw_epoch = ""
        self.restores = 0
        self.arrived_rows = 0
        self.repeated_rows = 0
        self.lost_rows = 0
        self._at_commit: dict[str, Callable[..., None]] = {
            "insert streams": self._stream,
            "insert readings": self._reading,
            "insert losses": self._loss,
            "insert outbox": self._row,
            "insert dead_letters": lambda batch, *row: batch.buried.append(row),
            "insert commands": lambda batch, *row: self.commands.stored(*row),
            "insert meta": lambda batch, value: batch.marks.append(int(value)),
            "update meta": lambda batch, value: batch.marks.append(int(value)),
            "delete readings": lambda batch, *row: batch.removed.append(row),
            "delete outbox": lambda batch, *row: batch.removed.append(row),
        }

    def found(self, kind: str, subject: str, detail: str = "") -> None:
        """End the run."""
        raise Found(Finding(kind, subject, detail, True))

    def _book(self, node: str, epoch: int) -> Book:
        book = self._books.get((node, epoch))
        if book is None:
            truth = self._street.truth.of(node, epoch)
            book = self._books[(node, epoch)] = Book(node, epoch, truth)
        return book

    def top_seq(self, node: str, epoch: int) -> int:
        """Return the highest number that is stored or declared lost."""
        book = self._books.get((node, epoch))
        return 0 if book is None else book.top_seq

    # --- the nodes ---

    def acknowledged(self, node: str, epoch: int, seq: int) -> None:
        """A node was told that everything up to `seq` is durable: is it?"""
        self._street.trace.note(f"ack {self._house.name} {node} {seq}")
        rows = self._house.disk.execute(
            "select s.last_seq, (select min(first_seq) from gaps g where g.stream_no = "
            "s.stream_no) from streams s join nodes n using (node_no) "
            "where n.node_id = ? and s.epoch = ?",
            [node, epoch],
        ).fetchall()
        durable_seq = 0
        if rows:
            durable_seq = rows[0][0] if rows[0][1] is None else rows[0][1] - 1
        if seq > durable_seq:
            self.found("acked before its commit", f"{node}/{epoch}/{seq}", f"{durable_seq} is")

    def classified(self, stream: Any, seq: int, answer: str, *, live: bool) -> None:
        """The gateway has judged a number: two rules that no stored row shows."""
        name = f"{stream.node.node_id}/{stream.epoch}/{seq}"
        if live and answer == "accepted" and seq - stream.last_seq > JUMP_LIMIT:
            self.found("a jump was believed", name, f"after {stream.last_seq}")
        book = self._book(stream.node.node_id, stream.epoch)
        if live and answer == "accepted" and seq <= book.heard_seq:
            self.found("a recording was believed", name, "it was stored before the restore")
        young = self._street.timeline.now_s - book.top_s < _YOUNG_S
        if answer == "replay" and seq == book.top_seq and book.of(seq) & STORED and young:
            self.found("a repetition was taken for a replay", name)

    # --- the database ---

    def committed(self, seen: list[tuple[Any, ...]]) -> None:
        """A transaction stands; `seen`: its rows in their order."""
        batch = Batch()
        for what, *row in seen:
            self._at_commit[what](batch, *row)
        # In a group who owns the node has heard the old epoch's end, or asks the node for it.
        for node in () if self._house.street.grouped else batch.began_again:
            # Said with the new stream, or standing since the node fell silent.
            standing = self._house.disk.execute(
                "select 1 from losses l join streams s using (stream_no) join nodes n "
                "using (node_no) where n.node_id = ? and l.last_seq is null "
                "and l.closed_seq is null and s.stream_no = (select stream_no from streams o "
                "where o.node_no = n.node_no order by stream_no desc limit 1 offset 1)",
                [node],
            ).fetchall()
            if not standing:
                self.found("tail not declared", node, "a new epoch ended the old one")
        if batch.readings:
            book, seq = next(iter(batch.readings.values()))
            self.found("no outbox row", f"{book.node}/{book.epoch}/{seq}")
        for number in batch.losses.keys() - batch.said:
            self.found("no outbox row", f"loss {number}", str(batch.losses[number]))
        for _, node, epoch, _, last, _ in batch.losses.values():
            book = self._book(node, epoch)  # only now: losses are written before readings
            book.top_seq = max(book.top_seq, last or 0)
        for outbox_no, payload in batch.buried:
            self._dead_letter(outbox_no, _decode(payload))
        for number, *reading in batch.removed:
            self._removed(number, *reading)
        first_no = next(iter(self._waiting), None)
        for mark in batch.marks:
            if first_no is not None and mark >= first_no:
                self.found("mark too far", f"outbox row {first_no}", f"done up to {mark}")
        if seen:
            self._street.trace.note(f"{self._house.name} commit {len(seen)} rows")

    def _stream(self, batch: Batch, stream_no: int, node_no: int, epoch: int) -> None:
        rows = self._house.disk.execute(
            "select node_id from nodes where node_no = ?", [node_no]
        ).fetchall()
        if any(book.node == rows[0][0] for book in self._streams.values()):
            batch.began_again.append(rows[0][0])
        self._streams[stream_no] = self._book(rows[0][0], epoch)

    def _reading(self, batch: Batch, number: int, stream_no: int, seq: int, via: str) -> None:
        book = self._streams[stream_no]
        name, known = f"{book.node}/{book.epoch}/{seq}", book.of(seq)
        if known & STORED:
            self.found("stored twice", name)
        if known & LOST:
            self.found("stored after it was declared lost", name)
        if seq not in book.truth:
            self.found("invented", name, f"stored via {via}, but its node never measured it")
        if via == "advert" and seq <= book.top_seq:
            self.found("live below the watermark", name, f"{book.top_seq} is stored")
        book.set(seq, STORED)
        if seq > book.top_seq:
            book.top_seq, book.top_s = seq, self._street.timeline.now_s
        batch.readings[number] = (book, seq)

    def _loss(
        self, batch: Batch, number: int, stream_no: int, first: int, last: int | None, why: str
    ) -> None:
        book = self._streams[stream_no]
        batch.losses[number] = ("loss", book.node, book.epoch, first, last, why)
        if last is None:
            if any(book.of(seq) & ~UPSTREAM for seq in range(first, len(book.flags))):
                self.found("tail begins too early", f"{book.node}/{book.epoch}/{first}")
            return
        for seq in range(first, last + 1):
            self._lose(book, seq, why)

    def _lose(self, book: Book, seq: int, why: str) -> None:
        name, known = f"{book.node}/{book.epoch}/{seq}", book.of(seq)
        if known & LOST:
            self.found("declared lost twice", name, why)
        if why in words.LOSSES:
            log = self._street.nodes[book.node].log
            gone = log.reason(book.epoch, seq) is not None
            if known & STORED or not gone or (why == "unused" and seq in book.truth):
                self.found("false loss", name, f"declared {why}")
            if book.epoch == log.epoch and seq > log.last_seq:
                self.found("false loss", name, f"declared {why}, but it was never reached")
        elif why == "refused" and known & ARRIVED:
            self.found("false loss", name, "declared refused, but it has arrived")
        elif why == _TAIL:
            if known & STORED or not self._street.nodes[book.node].forgets(book.epoch):
                self.found("false loss", name, f"declared {why}, but its node has it still")
        elif not known & STORED:
            self.found("false loss", name, f"declared {why}, but never stored")
        book.set(seq, LOST)
        self.lost_rows += seq in book.truth

    def _row(
        self,
        batch: Batch,
        outbox_no: int,
        kind: str,
        row_no: int | None,
        topic: str | None,
        payload: bytes | None,
    ) -> None:
        newest_no = self._newest_no.get(self._epoch(), 0)
        if outbox_no <= newest_no:
            self.found("outbox number used again", str(outbox_no), f"{newest_no} was used")
        self._newest_no[self._gw_epoch] = self.identities.top_no = outbox_no
        if kind == "reading":
            if row_no not in batch.readings:
                self.found("outbox row without its reading", str(outbox_no))
            book, seq = batch.readings.pop(row_no or 0)
            book.set_row(seq, outbox_no)
            self._waiting[outbox_no] = ("reading", book, seq)
            return
        if kind == "loss":
            batch.said.add(row_no or 0)
            fresh = batch.losses.get(row_no or 0)
            if fresh is not None and fresh[4] is None:
                self._street.tailbook.said(self._house, *fresh[1:4])
            key = fresh or self._said_again(row_no)
        else:
            key = self._message(topic, payload)
        self.identities.row(outbox_no, key, row_no)
        self._waiting[outbox_no] = key
        self._numbers.setdefault(key, deque()).append(outbox_no)

    def _epoch(self) -> str:
        """Return the gw_epoch of the rows that come."""
        if not self._gw_epoch:
            rows = self._house.disk.execute("select value from meta where key = 'gw_epoch'")
            self._gw_epoch = rows.fetchone()[0]
            self.identities.gw_epochs.add(self._gw_epoch)
        return self._gw_epoch

    def _said_again(self, loss_no: int | None) -> tuple[Any, ...]:
        """Return what a loss that was stored before must arrive as: a tail, after a restore."""
        rows = self._house.disk.execute(
            "select n.node_id, s.epoch, l.first_seq, l.last_seq, l.reason from losses l join "
            "streams s using (stream_no) join nodes n using (node_no) where l.loss_no = ?",
            [loss_no],
        )
        return ("loss", *rows.fetchone())

    def _message(self, topic: str | None, payload: bytes | None) -> tuple[Any, ...]:
        """Take a row that carries its whole message; returns what it must arrive as."""
        message = _decode(payload or b"")
        if (topic or "").endswith("/result"):
            self.commands.result(message)
        elif message["kind"] == "alarm" and message["what"].startswith("sequence"):
            self.found("the gateway's own alarm", message["node"], str(message))
        elif message["kind"] == "loss":
            book = self._book(message["node"], message["epoch"])
            self._lose(book, message["first_seq"], message["reason"])
        elif message["kind"] == "found" and message["reason"] == _TAIL:
            self._street.tailbook.taken_back(self._house, message)
        return key_of(topic, message)

    def _dead_letter(self, outbox_no: int, message: dict[str, Any]) -> None:
        entry = self._waiting.pop(outbox_no, None)
        if entry is None:
            return  # written before, in a life that crashed before the mark
        if entry[0] == "reading":
            self._dead_reading(entry[1], entry[2], message)
            return
        self.identities.buried(entry)
        self._numbers[entry].remove(outbox_no)
        if key_of(entry[0], message) != entry:
            self.found("dead letter altered", str(outbox_no), f"{entry} became {message}")
        if is_loss(message):
            self._said(message)

    def _dead_reading(self, book: Book, seq: int, message: dict[str, Any]) -> None:
        name = f"{book.node}/{book.epoch}/{seq}"
        if not book.of(seq) & LOST:
            self.found("refused and not declared", name)
        same = (message["node"], message["epoch"], message["seq"]) == (book.node, book.epoch, seq)
        if not same or not is_same(book.truth[seq][0], message, self._street.geometry(book.node)):
            self.found("dead letter altered", name, str(message))

    def _said(self, loss: dict[str, Any]) -> None:
        """A loss record is where people see it; a tail says nothing of single numbers."""
        if loss["last_seq"] is not None:
            book = self._book(loss["node"], loss["epoch"])
            for seq in range(loss["first_seq"], loss["last_seq"] + 1):
                book.set(seq, SAID)

    def _removed(self, number: int, stream_no: int | None = None, seq: int = 0) -> None:
        if stream_no is not None:
            book = self._streams[stream_no]
            if seq == book.top_seq:
                book.top_s = -_YOUNG_S  # and its digest is gone with it: after a start, a replay
            if not book.of(seq) & (ARRIVED | LOST):
                self.found("undelivered reading removed", f"{book.node}/{book.epoch}/{seq}")
            return
        entry = self._waiting.pop(number, None)
        if entry is not None and not (entry[0] == "reading" and entry[1].of(entry[2]) & LOST):
            self.found("undelivered row removed", f"outbox row {number}", str(entry[0]))

    # --- a backup ---

    def remember(self) -> Memory:
        """Return what is known now."""
        books = {
            key: (bytes(book.flags), book.top_seq, book.top_s, book.settled_seq)
            for key, book in self._books.items()
        }
        numbers = {key: deque(waiting) for key, waiting in self._numbers.items()}
        return Memory(
            self.restores,
            books,
            dict(self._streams),
            dict(self._waiting),
            numbers,
            self.identities.top_no,
        )

    def restored(self, memory: Memory) -> None:
        """The gateway knows what it knew then; what has arrived has arrived."""
        self.restores += 1
        self._gw_epoch = ""
        for key, book in self._books.items():
            flags, top_seq, top_s, settled_seq = memory.books.get(key, (b"", 0, 0.0, 0))
            arrived = bytearray(flag & UPSTREAM for flag in book.flags)
            for seq, flag in enumerate(flags):
                arrived[seq] |= flag
            book.heard_seq = max(book.heard_seq, book.top_seq)
            book.flags, book.top_seq = arrived, top_seq
            book.top_s, book.settled_seq = top_s, settled_seq
        self._streams, self._waiting = dict(memory.streams), dict(memory.waiting)
        gone: dict[tuple[Any, ...], deque[int]] = {key: deque() for key in self._numbers}
        self._numbers = gone | {key: deque(rows) for key, rows in memory.numbers.items()}
        self.identities.restored(memory.top_no)
        self.commands.restored()
        self._street.tailbook.restored(self._house)

    # --- the broker ---

    def has_arrived(self, topic: str, payload: bytes) -> bool:
        """Tell whether a message, or a part of it, has been here before."""
        message = _decode(payload)
        if isinstance(message, list):
            return any(self._is_known(one) for one in message)
        if is_reading(message):
            return self._is_known(message)
        return message.get("outbox_no") not in self._numbers.get(key_of(topic, message), ())

    def _is_known(self, message: dict[str, Any]) -> bool:
        return bool(self._book(message["node"], message["epoch"]).of(message["seq"]) & ARRIVED)

    def delivered(self, topic: str, payload: bytes) -> None:
        """A message has arrived upstream."""
        message = _decode(payload)
        if isinstance(message, list):
            for one in message:
                self._reading_arrived(one)
        elif is_reading(message):
            self._reading_arrived(message)
        else:
            self._other_arrived(topic, message)

    def _other_arrived(self, topic: str, message: dict[str, Any]) -> None:
        self._street.trace.note(f"arrived {topic}")
        if message.get("kind") == "anchor":
            self.times.anchored(message)
        if message.get("kind") in ("loss", "found"):
            self._street.tailbook.arrived(self._house, message)
        key = key_of(topic, message)
        numbers = self._numbers.get(key)
        if numbers is None:
            self.found("invented", topic, str(message))
        self.identities.placed(message, topic, self._epoch())
        self.identities.other(message, key, self._refused_no(message))
        if numbers and message["outbox_no"] in numbers:
            numbers.remove(message["outbox_no"])
            self._waiting.pop(message["outbox_no"])
        if is_loss(message):
            self._said(message)

    def _refused_no(self, message: dict[str, Any]) -> int:
        """Return the row of the reading that a loss calls refused; 0: it is no such loss."""
        if message.get("reason") != "refused":
            return 0
        return self._book(message["node"], message["epoch"]).row(message["first_seq"])

    def _reading_arrived(self, message: dict[str, Any]) -> None:
        seq, outbox_no = message["seq"], message["outbox_no"]
        book = self._book(message["node"], message["epoch"])
        known = book.of(seq)
        if not known & STORED:
            self.found("sent before its commit", message["id"])
        record, made_s = book.truth[seq]
        if not is_same(record, message, self._street.geometry(book.node)):
            self.found("altered", message["id"], f"{record.hex()} became {message}")
        self._street.trace.note(f"arrived {message['id']}")
        if known & LOST and not known & ARRIVED:
            self.found("arrived after it was declared lost", message["id"])
        entry = self._waiting.pop(outbox_no, None)
        if entry is None and not known & ARRIVED:
            self.found("from an unknown row", message["id"], f"outbox row {outbox_no}")
        if entry is not None and (entry[1] is not book or entry[2] != seq):
            self.found("from another row", message["id"], f"outbox row {outbox_no}")
        self.identities.placed(message, message["id"], self._epoch())
        self.identities.reading(message, book, seq)
        if known & ARRIVED:
            self.repeated_rows += 1
        else:
            self.arrived_rows += 1
            book.set(seq, ARRIVED)
            key = (book.node, book.epoch, seq)
            self.times.arrived(message, made_s, kept_back=key in self._street.truth.kept_back)

    # --- the account ---

    def audit(self) -> None:
        """Every number up to each durable watermark is stored, lost or in a gap, and only one."""
        gaps: dict[int, list[tuple[int, int]]] = {}
        for stream_no, first, last in self._house.disk.execute(
            "select stream_no, first_seq, last_seq from gaps"
        ):
            gaps.setdefault(stream_no, []).append((first, last))
        for stream_no, last_seq in self._house.disk.execute(
            "select stream_no, last_seq from streams"
        ).fetchall():
            self._account(self._streams[stream_no], last_seq, gaps.get(stream_no, []))

    def _account(self, book: Book, last_seq: int, gaps: list[tuple[int, int]]) -> None:
        missing = {seq for first, last in gaps for seq in range(first, last + 1)}
        settled = True
        for seq in range(book.settled_seq + 1, last_seq + 1):
            known = book.of(seq)
            mine = bool(known & (STORED | LOST))
            elsewhere = not mine and self._street.settled(book.node, book.epoch, seq)
            if mine == (seq in missing) and not elsewhere:
                what = "stored and in a gap" if known else "unaccounted"
                self.found(what, f"{book.node}/{book.epoch}/{seq}", f"of {last_seq}, gaps {gaps}")
            settled = settled and (bool(known & UPSTREAM) or elsewhere)
            if settled:
                book.settled_seq = seq

    def finish(self) -> None:
        """After the rest nothing may be on its way any more."""
        self.audit()
        for outbox_no, entry in self._waiting.items():
            self.found("not delivered", f"outbox row {outbox_no}", str(entry[0]))
        self.identities.finish()
        self.times.finish()
        self.commands.finish()

    def watermarks(self) -> Iterator[tuple[tuple[str, int], int]]:
        """Yield each stream of the database, as (node, epoch), and the last number known of it."""
        for stream_no, last_seq in self._house.disk.execute(
            "select stream_no, last_seq from streams"
        ):
            book = self._streams[stream_no]
            yield (book.node, book.epoch), last_seq

    def settled(self, node: str, epoch: int, seq: int) -> bool:
        """Tell whether upstream has a number from here, or the record that it is lost."""
        book = self._books.get((node, epoch))
        return book is not None and bool(book.of(seq) & UPSTREAM)
