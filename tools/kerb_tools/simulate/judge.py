"""The judge: what nodes measured and what each COMMIT held; what arrived is arrivals.py's.

Rule: it knows the contract and the tables, not the gateway's code; the first thing that is not as
the contract says ends the run. Each number of each stream is at any crash exactly one of: stored,
declared lost, in an open gap, or not yet known to the gateway; what is stored arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from kerb_check.model import Finding
from kerb_wire import words
from kerb_wire.limits import JUMP_LIMIT

from kerb_tools.simulate.arrivals import Arrivals
from kerb_tools.simulate.books import ARRIVED, LOST, STORED, UPSTREAM, Batch, Book, Books, Pages
from kerb_tools.simulate.commandbook import CommandBook
from kerb_tools.simulate.keys import Key, key_of
from kerb_tools.simulate.owed import READING, Debt, Owed
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
    pages: Pages
    streams: dict[int, Book]
    debt: Debt


class Judge:
    """Sees everything, decides nothing of the run but its end."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._street = house.street
        self.commands = CommandBook(house, self.found)
        self.times = TimeJudge(house)
        self.books = Books(house.street.truth)
        self.owed = Owed(house, self)
        self.arrivals = Arrivals(house, self)
        self._streams: dict[int, Book] = {}
        self.restores = 0
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
        book = self.books.of(stream.node.node_id, stream.epoch)
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
            book = self.books.of(node, epoch)  # only now: losses are written before readings
            book.top_seq = max(book.top_seq, last or 0)
        for outbox_no, payload in batch.buried:
            self.arrivals.buried(outbox_no, payload)
        for number, *reading in batch.removed:
            self._removed(number, *reading)
        first_no = self.owed.first_no()
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
        self._streams[stream_no] = self.books.of(rows[0][0], epoch)

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
        self.owed.numbered(outbox_no)
        if kind == "reading":
            if row_no not in batch.readings:
                self.found("outbox row without its reading", str(outbox_no))
            book, seq = batch.readings.pop(row_no or 0)
            self.owed.reading(outbox_no, book, seq)
            return
        if kind == "loss":
            batch.said.add(row_no or 0)
            fresh = batch.losses.get(row_no or 0)
            if fresh is not None and fresh[4] is None:
                self._street.tailbook.said(self._house, *fresh[1:4])
            key = fresh or self._said_again(row_no)
        else:
            key = self._message(topic, payload)
        self.owed.message(outbox_no, key, row_no)

    def _said_again(self, loss_no: int | None) -> Key:
        """Return what a loss that was stored before must arrive as: a tail, after a restore."""
        rows = self._house.disk.execute(
            "select n.node_id, s.epoch, l.first_seq, l.last_seq, l.reason from losses l join "
            "streams s using (stream_no) join nodes n using (node_no) where l.loss_no = ?",
            [loss_no],
        )
        return ("loss", *rows.fetchone())

    def _message(self, topic: str | None, payload: bytes | None) -> Key:
        """Take a row that carries its whole message; returns what it must arrive as."""
        message = _decode(payload or b"")
        if (topic or "").endswith("/result"):
            self.commands.result(message)
        elif message["kind"] == "alarm" and message["what"].startswith("sequence"):
            self.found("the gateway's own alarm", message["node"], str(message))
        elif message["kind"] == "loss":
            book = self.books.of(message["node"], message["epoch"])
            self._lose(book, message["first_seq"], message["reason"])
        elif message["kind"] == "found" and message["reason"] == _TAIL:
            self._street.tailbook.taken_back(self._house, message)
        return key_of(topic, message)

    def _removed(self, number: int, stream_no: int | None = None, seq: int = 0) -> None:
        if stream_no is not None:
            book = self._streams[stream_no]
            if seq == book.top_seq:
                book.top_s = -_YOUNG_S  # and its digest is gone with it: after a start, a replay
            if not book.of(seq) & (ARRIVED | LOST):
                self.found("undelivered reading removed", f"{book.node}/{book.epoch}/{seq}")
            return
        entry = self.owed.ended(number)
        if entry is not None and not (entry[0] == READING and entry[1].of(entry[2]) & LOST):
            self.found("undelivered row removed", f"outbox row {number}", str(entry[0]))

    # --- a backup ---

    def remember(self) -> Memory:
        """Return what is known now."""
        return Memory(
            self.restores, self.books.remember(), dict(self._streams), self.owed.remember()
        )

    def restored(self, memory: Memory) -> None:
        """The gateway knows what it knew then; what has arrived has arrived."""
        self.restores += 1
        self.books.restored(memory.pages)
        self._streams = dict(memory.streams)
        self.owed.restored(memory.debt)
        self.commands.restored()
        self._street.tailbook.restored(self._house)

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
        self.owed.finish()
        self.times.finish()
        self.commands.finish()

    def watermarks(self) -> Iterator[tuple[tuple[str, int], int]]:
        """Yield each stream of the database, as (node, epoch), and the last number known of it."""
        for stream_no, last_seq in self._house.disk.execute(
            "select stream_no, last_seq from streams"
        ):
            book = self._streams[stream_no]
            yield (book.node, book.epoch), last_seq
