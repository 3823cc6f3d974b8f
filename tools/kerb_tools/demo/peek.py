"""Looks into a running gateway's database, read-only, for the live table.

Rule: for eyes only; the verdict never uses it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple


class NodeView(NamedTuple):
    """What the gateway knows of a node right now."""

    last_seq: int
    open_numbers: int
    stored: int
    newest: dict[str, object]


_STREAMS = """
    select n.node_id, s.last_seq,
      coalesce((select sum(g.last_seq - g.first_seq + 1) from gaps g
                where g.stream_no = s.stream_no), 0) as open_numbers,
      (select count(*) from readings r where r.stream_no = s.stream_no) as stored,
      s.stream_no
    from streams s join nodes n using (node_no)
"""


class Peek:
    """Reads a few rows each second."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def nodes(self) -> dict[str, NodeView]:
        """Return what is known of each node; empty while there is no database."""
        try:
            with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True) as connection:
                connection.row_factory = sqlite3.Row
                return {
                    row["node_id"]: NodeView(
                        row["last_seq"],
                        row["open_numbers"],
                        row["stored"],
                        _newest(connection, row["stream_no"]),
                    )
                    for row in connection.execute(_STREAMS)
                }
        except sqlite3.Error:
            return {}

    def waiting(self) -> tuple[int, int]:
        """Return (open gap ranges, outbox rows)."""
        try:
            with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True) as connection:
                row = connection.execute(
                    "select (select count(*) from gaps), (select count(*) from outbox where "
                    "outbox_no > coalesce((select cast(value as integer) from meta "
                    "where key = 'outbox_done'), 0))"
                ).fetchone()
                return int(row[0]), int(row[1])
        except sqlite3.Error:
            return 0, 0


def _newest(connection: sqlite3.Connection, stream_no: int) -> dict[str, object]:
    """Return the reading with the highest number: what was fetched afterwards is older news."""
    row = connection.execute(
        "select * from readings where stream_no = ? order by seq desc limit 1", [stream_no]
    ).fetchone()
    return dict(row) if row else {}
