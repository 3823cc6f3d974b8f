"""What became of each number of each stream at one gateway, and what one transaction has brought.

Rule: flags are only ever added, but for what a restored gateway has forgotten.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from kerb_tools.simulate.truth import Measured, Truth

STORED, LOST, ARRIVED = 1, 2, 4
SAID = 8  # its loss record is upstream, or a dead letter that a person is told of
UPSTREAM = ARRIVED | SAID  # what a restore of the gateway does not undo


@dataclass
class Book:
    """One stream: what its node measured, and what became of each number."""

    node: str
    epoch: int
    truth: dict[int, Measured]
    flags: bytearray = field(default_factory=bytearray)
    top_seq: int = 0  # highest number that was stored or declared lost
    top_s: float = 0.0  # when it was stored
    settled_seq: int = 0  # everything up to here has arrived or is declared lost
    heard_seq: int = 0  # what was stored before a restore is a recording when it comes live again

    rows: array[int] = field(default_factory=lambda: array("L"))  # the outbox row of each number

    def of(self, seq: int) -> int:
        """Return what is known of a number."""
        return self.flags[seq] if seq < len(self.flags) else 0

    def row(self, seq: int) -> int:
        """Return the outbox row that a number was stored with last; 0: none."""
        return self.rows[seq] if seq < len(self.rows) else 0

    def set_row(self, seq: int, outbox_no: int) -> None:
        """Note the outbox row of a number; it never changes while the database knows it."""
        if seq >= len(self.rows):
            self.rows.extend([0] * (seq + 1024 - len(self.rows)))
        self.rows[seq] = outbox_no

    def set(self, seq: int, flag: int) -> None:
        """Note one thing more of a number."""
        if seq >= len(self.flags):
            self.flags.extend(bytes(seq + 1024 - len(self.flags)))
        self.flags[seq] |= flag


Pages = dict[tuple[str, int], tuple[bytes, int, float, int]]  # of each book, for a backup


class Books:
    """The books of all streams at one gateway, by node and epoch."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._books: dict[tuple[str, int], Book] = {}

    def of(self, node: str, epoch: int) -> Book:
        """Return a stream's book, a new one if there was none."""
        book = self._books.get((node, epoch))
        if book is None:
            book = self._books[(node, epoch)] = Book(node, epoch, self._truth.of(node, epoch))
        return book

    def top_seq(self, node: str, epoch: int) -> int:
        """Return the highest number that is stored or declared lost."""
        book = self._books.get((node, epoch))
        return 0 if book is None else book.top_seq

    def is_upstream(self, node: str, epoch: int, seq: int) -> bool:
        """Tell whether upstream has a number from here, or the record that it is lost."""
        book = self._books.get((node, epoch))
        return book is not None and bool(book.of(seq) & UPSTREAM)

    def remember(self) -> Pages:
        """Return what a backup of now will know."""
        return {
            key: (bytes(book.flags), book.top_seq, book.top_s, book.settled_seq)
            for key, book in self._books.items()
        }

    def restored(self, pages: Pages) -> None:
        """The gateway knows what it knew then; what has arrived has arrived."""
        for key, book in self._books.items():
            flags, top_seq, top_s, settled_seq = pages.get(key, (b"", 0, 0.0, 0))
            arrived = bytearray(flag & UPSTREAM for flag in book.flags)
            for seq, flag in enumerate(flags):
                arrived[seq] |= flag
            book.heard_seq = max(book.heard_seq, book.top_seq)
            book.flags, book.top_seq = arrived, top_seq
            book.top_s, book.settled_seq = top_s, settled_seq


@dataclass
class Batch:
    """What one transaction has brought, until all of it is seen."""

    readings: dict[int, tuple[Book, int]] = field(default_factory=dict)
    losses: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    said: set[int] = field(default_factory=set)  # of the losses: those with an outbox row
    buried: list[tuple[Any, ...]] = field(default_factory=list)
    removed: list[tuple[Any, ...]] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    began_again: list[str] = field(default_factory=list)  # nodes that had a stream before
