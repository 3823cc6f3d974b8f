"""What the messages of one gateway call themselves: `id`, `gw_epoch` and `outbox_no`.

Rule: docs/mqtt-topics.md defines each of them; what a message is called is worked out from its row
and its content, never taken from the gateway's word. A pair (gw_epoch, outbox_no) is one message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kerb_tools.simulate.books import Book

_TAIL, _REFUSED = "tail unknown", "refused"
_Key = tuple[Any, ...]


class Identities:
    """Of everything that goes upstream from one gateway; a book keeps the rows of its readings."""

    def __init__(self, found: Callable[..., None]) -> None:
        self._found = found
        self._rows: dict[int, tuple[_Key, int | None]] = {}  # outbox_no -> what, number of a loss
        self._ids: dict[str, _Key] = {}  # what each id was said of, in all gw_epochs
        self._taken_back: dict[str, _Key] = {}  # tails by the id that a `found` has named
        self._buried: set[_Key] = set()
        self.gw_epochs: list[str] = []  # in the order in which they began
        self.top_no = 0  # the highest outbox number of the database

    def row(self, outbox_no: int, key: _Key, row_no: int | None) -> None:
        """A row was committed that is no reading's; row_no: the number of the loss it names."""
        self._rows[outbox_no] = (key, row_no)

    def buried(self, key: _Key) -> None:
        """The broker has refused a message for good: nobody upstream will know it."""
        self._buried.add(key)

    def restored(self, top_no: int) -> None:
        """The database knows no number above this one, and gives them out again."""
        self._rows = {no: row for no, row in self._rows.items() if no <= top_no}
        self.top_no = top_no

    # --- at the broker ---

    def placed(self, message: dict[str, Any], name: str, gw_epoch: str) -> None:
        """Every message is of the gw_epoch of the database that it was sent from."""
        if message.get("gw_epoch") != gw_epoch:
            self._found("of another gw_epoch", name, f"{message.get('gw_epoch')}, not {gw_epoch}")

    def reading(self, message: dict[str, Any], book: Book, seq: int) -> None:
        """A reading is called by its node's numbers, and keeps the row that it was stored with."""
        name = f"{book.node}/{book.epoch}/{seq}"
        if message.get("id") != name:
            self._found("another id", name, f"called {message.get('id')}")
        if message.get("outbox_no") != book.row(seq):
            row = f"row {message.get('outbox_no')}, not {book.row(seq)}"
            self._found("from another row", name, row)

    def other(self, message: dict[str, Any], key: _Key, refused_no: int) -> None:
        """Any other message; refused_no: the row of the reading that a loss calls refused."""
        outbox_no, name = message.get("outbox_no", 0), str(message.get("id", key[0]))
        row = self._rows.get(outbox_no)
        if row is None:
            self._found("from an unknown row", name, f"outbox row {outbox_no}")
        elif row[0] != key:
            self._found("from another row", name, f"row {outbox_no} holds {row[0]}")
        else:
            self._named(message, key, row[1] or refused_no)

    def _named(self, message: dict[str, Any], key: _Key, number: int) -> None:
        kind, id_ = message.get("kind"), message.get("id")
        if kind == "loss":
            fits = id_ in self._ids_of_loss(message, number)
        elif kind == "found":
            fits = id_ == f"found/{message['of']}"
            self._taken_back[message["of"]] = _tail(message)
        elif kind == "dropped":
            letter_no = message["letter_no"]
            fits = id_ in {f"dropped/{gw_epoch}/{letter_no}" for gw_epoch in self.gw_epochs}
        elif kind == "restored":
            fits = self._is_restore(message)
        else:
            fits = (id_ is not None) == (kind == "anchor")  # alarms and results have none
        if not fits:
            self._found("another id", str(id_), str(message))
        what = key[:-1] if kind == "loss" else key  # its node may know another reason by now
        if id_ is not None and self._ids.setdefault(id_, what) != what:
            self._found("one id for two", id_, f"{what} and {self._ids[id_]}")

    def _is_restore(self, message: dict[str, Any]) -> bool:
        """It is called by the gw_epoch that began, wherever it waited; earlier ones are over."""
        began = str(message.get("id")).removeprefix("restored/")
        if began not in self.gw_epochs:
            return False
        not_over = self.gw_epochs[self.gw_epochs.index(began) :]
        return not set(not_over) & set(message["before"])

    def _ids_of_loss(self, message: dict[str, Any], number: int) -> list[str]:
        first, last, reason = message["first_seq"], message["last_seq"], message["reason"]
        plain = f"loss/{message['node']}/{message['epoch']}/{first}-{'' if last is None else last}"
        if reason != _REFUSED and last is not None:
            return [plain]
        # It can be said again of the same numbers; before or after a restore, if it waited for it.
        return [f"{plain}/{gw_epoch}/{number}" for gw_epoch in self.gw_epochs]

    def finish(self) -> None:
        """What was taken back must have been said under that id, or nobody upstream could know."""
        for of, tail in self._taken_back.items():
            if of not in self._ids and tail not in self._buried:
                self._found("taken back what was never said", of)


def _tail(message: dict[str, Any]) -> _Key:
    return ("loss", message["node"], message["epoch"], message["first_seq"], None, _TAIL)
