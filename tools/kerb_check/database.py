"""The gateway's SQLite file, opened read-only: what it stored, lost, and still holds open.

Rule: tables are read as data; the gateway's counters are not looked at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerb_check.model import OPEN_END, Identity, Loss, Reading, SourceError


@dataclass
class Database:
    """The rows that matter for the contract."""

    readings: list[Reading] = field(default_factory=list)  # in the order they were appended
    losses: list[Loss] = field(default_factory=list)
    open_gaps: list[Loss] = field(default_factory=list)


MAIN = ""  # the name of the gateway whose file has no name in its own
_STEM = "gateway"


def read_all(run: Path) -> dict[str, Database]:
    """Return each gateway's database: gateway.sqlite is the only or the first one's, called "";
    gateway-NAME.sqlite that of the gateway NAME. SourceError if one is broken, or there is none.
    """
    names = {path: path.stem[len(_STEM) + 1 :] for path in run.glob(f"{_STEM}-*.sqlite")}
    return {MAIN: read(run / f"{_STEM}.sqlite")} | {
        name: read(path) for path, name in sorted(names.items())
    }


def merged(databases: Collection[Database]) -> Database:
    """Return the rows of all gateways together."""
    return Database(
        [row for one in databases for row in one.readings],
        [row for one in databases for row in one.losses],
        [row for one in databases for row in one.open_gaps],
    )


_READINGS = """
    select n.node_id as node, s.epoch as epoch, r.*
    from readings r join streams s using (stream_no) join nodes n using (node_no)
    order by r.reading_no
"""
_RANGES = """
    select n.node_id as node, s.epoch as epoch, t.*
    from {table} t join streams s using (stream_no) join nodes n using (node_no)
"""


def read(path: Path) -> Database:
    """Return the content of `path`; SourceError if it is missing, damaged or of another shape."""
    if not path.is_file():
        raise SourceError(f"{path.name}: there is no such file")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        check = connection.execute("pragma integrity_check").fetchone()[0]
        if check != "ok":
            raise SourceError(f"{path.name}: integrity_check says {check}")
        readings = [_reading(row) for row in connection.execute(_READINGS)]
        losses = [_range(row) for row in connection.execute(_RANGES.format(table="losses"))]
        gaps = [_range(row) for row in connection.execute(_RANGES.format(table="gaps"))]
    except sqlite3.Error as error:
        raise SourceError(f"{path.name}: {error}") from error
    finally:
        connection.close()
    return Database(readings, losses, gaps)


def _reading(row: sqlite3.Row) -> Reading:
    values: dict[str, Any] = dict(row)
    tenths = values.pop("temperature_dc", None)
    values["temperature_c"] = None if tenths is None else tenths / 10
    return Reading(Identity(values["node"], values["epoch"], values["seq"]), values)


def _range(row: sqlite3.Row) -> Loss:
    keys = row.keys()
    reason = row["reason"] if "reason" in keys else "open gap"
    last = row["last_seq"]
    return Loss(
        row["node"],
        row["epoch"],
        row["first_seq"],
        OPEN_END if last is None else last,
        str(reason),
    )
