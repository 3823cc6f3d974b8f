"""What one gateway owes upstream: the rows of its outbox, by number and by what they say.

Rule: a row is owed from its COMMIT until it has arrived or is a dead letter; the numbers of a
gw_epoch only rise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerb_tools.simulate.books import Book
from kerb_tools.simulate.identities import Identities
from kerb_tools.simulate.keys import Key

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.judge import Judge

READING = "reading"


@dataclass
class Debt:
    """What was owed when a backup was taken."""

    waiting: dict[int, Key]
    numbers: dict[Key, deque[int]]
    top_no: int


class Owed:
    """Of everything that waits in the outbox; a reading's entry is (READING, book, seq)."""

    def __init__(self, house: House, judge: Judge) -> None:
        self._house = house
        self._judge = judge
        self._waiting: dict[int, Key] = {}  # outbox_no -> what must arrive
        self._numbers: dict[Key, deque[int]] = {}  # the same, the other way round
        self._newest_no: dict[str, int] = {}  # of each gw_epoch
        self._gw_epoch = ""
        self.identities = Identities(judge.found)

    def gw_epoch(self) -> str:
        """Return the gw_epoch of the rows that come."""
        if not self._gw_epoch:
            rows = self._house.disk.execute("select value from meta where key = 'gw_epoch'")
            self._gw_epoch = rows.fetchone()[0]
            self.identities.gw_epochs.append(self._gw_epoch)
        return self._gw_epoch

    def numbered(self, outbox_no: int) -> None:
        """A row was committed under this number."""
        newest_no = self._newest_no.get(self.gw_epoch(), 0)
        if outbox_no <= newest_no:
            self._judge.found("outbox number used again", str(outbox_no), f"{newest_no} was used")
        self._newest_no[self._gw_epoch] = self.identities.top_no = outbox_no

    def reading(self, outbox_no: int, book: Book, seq: int) -> None:
        """The row is a reading's."""
        book.set_row(seq, outbox_no)
        self._waiting[outbox_no] = (READING, book, seq)

    def message(self, outbox_no: int, key: Key, row_no: int | None) -> None:
        """The row is any other's; row_no: the number of the loss it names."""
        self.identities.row(outbox_no, key, row_no)
        self._waiting[outbox_no] = key
        self._numbers.setdefault(key, deque()).append(outbox_no)

    def has_been(self, key: Key) -> bool:
        """Tell whether such a message was ever committed."""
        return key in self._numbers

    def is_owed(self, key: Key, outbox_no: Any) -> bool:
        """Tell whether the message waits under this number."""
        return outbox_no in self._numbers.get(key, ())

    def ended(self, outbox_no: int) -> Key | None:
        """The row's way has ended, or the row is gone; returns what it was, None: it had ended."""
        entry = self._waiting.pop(outbox_no, None)
        if entry is not None and entry[0] != READING:
            self._numbers[entry].remove(outbox_no)
        return entry

    def first_no(self) -> int | None:
        """Return the oldest number that is owed."""
        return next(iter(self._waiting), None)

    def remember(self) -> Debt:
        """Return what is owed now."""
        numbers = {key: deque(waiting) for key, waiting in self._numbers.items()}
        return Debt(dict(self._waiting), numbers, self.identities.top_no)

    def restored(self, debt: Debt) -> None:
        """The gateway owes what it owed then, under another gw_epoch."""
        self._gw_epoch = ""
        self._waiting = dict(debt.waiting)
        gone: dict[Key, deque[int]] = {key: deque() for key in self._numbers}
        self._numbers = gone | {key: deque(rows) for key, rows in debt.numbers.items()}
        self.identities.restored(debt.top_no)

    def finish(self) -> None:
        """At the end nothing is owed."""
        for outbox_no, entry in self._waiting.items():
            self._judge.found("not delivered", f"outbox row {outbox_no}", str(entry[0]))
        self.identities.finish()
