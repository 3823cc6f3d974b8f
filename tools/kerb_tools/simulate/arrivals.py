"""What arrives at the broker from one gateway, or is refused there for good.

Rule: what arrives was committed before and is as its node made it; what the broker refuses for
good stays as a dead letter and is declared lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kerb_tools.simulate.books import ARRIVED, LOST, SAID, STORED, Book
from kerb_tools.simulate.content import is_same
from kerb_tools.simulate.keys import is_loss, is_reading, key_of
from kerb_tools.simulate.owed import READING

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.judge import Judge

_decode = msgspec.json.Decoder().decode


class Arrivals:
    """Holds each message against the books and against what is owed."""

    def __init__(self, house: House, judge: Judge) -> None:
        self._house = house
        self._judge = judge
        self._street = house.street
        self._books = judge.books
        self._owed = judge.owed
        self.arrived_rows = 0
        self.repeated_rows = 0

    def has_arrived(self, topic: str, payload: bytes) -> bool:
        """Tell whether a message, or a part of it, has been here before."""
        message = _decode(payload)
        if isinstance(message, list):
            return any(self._is_known(one) for one in message)
        if is_reading(message):
            return self._is_known(message)
        return not self._owed.is_owed(key_of(topic, message), message.get("outbox_no"))

    def _is_known(self, message: dict[str, Any]) -> bool:
        return bool(self._book(message).of(message["seq"]) & ARRIVED)

    def _book(self, message: dict[str, Any]) -> Book:
        return self._books.of(message["node"], message["epoch"])

    def delivered(self, topic: str, payload: bytes) -> None:
        """A message has arrived upstream."""
        message = _decode(payload)
        if isinstance(message, list):
            for one in message:
                self._reading(one)
        elif is_reading(message):
            self._reading(message)
        else:
            self._other(topic, message)

    def _other(self, topic: str, message: dict[str, Any]) -> None:
        self._street.trace.note(f"arrived {topic}")
        if message.get("kind") == "anchor":
            self._judge.times.anchored(message)
        if message.get("kind") in ("loss", "found"):
            self._street.tailbook.arrived(self._house, message)
        key = key_of(topic, message)
        if not self._owed.has_been(key):
            self._judge.found("invented", topic, str(message))
        identities = self._owed.identities
        identities.placed(message, topic, self._owed.gw_epoch())
        identities.other(message, key, self._refused_no(message))
        if self._owed.is_owed(key, message["outbox_no"]):
            self._owed.ended(message["outbox_no"])
        if is_loss(message):
            self._said(message)

    def _refused_no(self, message: dict[str, Any]) -> int:
        """Return the row of the reading that a loss calls refused; 0: it is no such loss."""
        if message.get("reason") != "refused":
            return 0
        return self._book(message).row(message["first_seq"])

    def _said(self, loss: dict[str, Any]) -> None:
        """A loss record is where people see it; a tail says nothing of single numbers."""
        if loss["last_seq"] is not None:
            book = self._book(loss)
            for seq in range(loss["first_seq"], loss["last_seq"] + 1):
                book.set(seq, SAID)

    def _reading(self, message: dict[str, Any]) -> None:
        found, seq, name = self._judge.found, message["seq"], message["id"]
        book = self._book(message)
        known = book.of(seq)
        if not known & STORED:
            found("sent before its commit", name)
        record, made_s = book.truth[seq]
        if not is_same(record, message, self._street.geometry(book.node)):
            found("altered", name, f"{record.hex()} became {message}")
        self._street.trace.note(f"arrived {name}")
        if known & LOST and not known & ARRIVED:
            found("arrived after it was declared lost", name)
        self._row_of(message, book)
        if known & ARRIVED:
            self.repeated_rows += 1
            return
        self.arrived_rows += 1
        book.set(seq, ARRIVED)
        key = (book.node, book.epoch, seq)
        kept_back = key in self._street.truth.kept_back
        self._judge.times.arrived(message, made_s, kept_back=kept_back)

    def _row_of(self, message: dict[str, Any], book: Book) -> None:
        """A reading comes from its own row, under its own name."""
        name, seq, outbox_no = message["id"], message["seq"], message["outbox_no"]
        entry = self._owed.ended(outbox_no)
        if entry is None and not book.of(seq) & ARRIVED:
            self._judge.found("from an unknown row", name, f"outbox row {outbox_no}")
        if entry is not None and (entry[1] is not book or entry[2] != seq):
            self._judge.found("from another row", name, f"outbox row {outbox_no}")
        self._owed.identities.placed(message, name, self._owed.gw_epoch())
        self._owed.identities.reading(message, book, seq)

    # --- refused for good ---

    def buried(self, outbox_no: int, payload: bytes) -> None:
        """A dead letter was committed."""
        message = _decode(payload)
        entry = self._owed.ended(outbox_no)
        if entry is None:
            return  # written before, in a life that crashed before the mark
        if entry[0] == READING:
            self._dead_reading(entry[1], entry[2], message)
            return
        self._owed.identities.buried(entry)
        if key_of(entry[0], message) != entry:
            self._judge.found("dead letter altered", str(outbox_no), f"{entry} became {message}")
        if is_loss(message):
            self._said(message)

    def _dead_reading(self, book: Book, seq: int, message: dict[str, Any]) -> None:
        name = f"{book.node}/{book.epoch}/{seq}"
        if not book.of(seq) & LOST:
            self._judge.found("refused and not declared", name)
        same = (message["node"], message["epoch"], message["seq"]) == (book.node, book.epoch, seq)
        if not same or not is_same(book.truth[seq][0], message, self._street.geometry(book.node)):
            self._judge.found("dead letter altered", name, str(message))
