"""What was committed a moment ago and waits for the publisher: no need to read it back.

Rule: rows are kept only while everything before them is in the publisher's hands, in one piece and
up to a bound; whatever does not fit is read from the database in its turn, where it lies anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

FRESH_ROWS = 2048

Row = Sequence[Any]  # a row of the outbox: its number first, then kind, row_no, topic, payload


class Fresh:
    """A run of outbox rows without a hole, with the columns of the readings that they name."""

    def __init__(self) -> None:
        self._rows: deque[tuple[Row, Any]] = deque()

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def first_no(self) -> int:
        """The number of the first row; only when there is one."""
        return int(self._rows[0][0][0])

    def keep(self, rows: Sequence[Row], content: Mapping[int, Any]) -> bool:
        """Take all rows or none; content: what those have, by outbox_no, that only name theirs."""
        if len(self._rows) + len(rows) > FRESH_ROWS:
            return False
        pairs = [(row, content.get(row[0])) for row in rows]
        if [row for row, named in pairs if named is None and row[4] is None]:
            return False
        self._rows.extend(pairs)
        return True

    def take(self, limit: int) -> list[tuple[Row, Any]]:
        """Remove and return the first rows, at most `limit`."""
        take = self._rows.popleft
        return [take() for _ in range(min(limit, len(self._rows)))]
