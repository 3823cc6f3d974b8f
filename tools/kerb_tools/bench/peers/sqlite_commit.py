"""Raw SQLite: the same tables, filled by executemany, a COMMIT with synchronous=FULL a group."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

GROUPS = (1, 10, 100, 1000)
_SECONDS = 1.0
_COLUMNS = 12  # of a reading's row, beside its number: what a bin's reading fills


def rates(folder: Path) -> dict[str, float]:
    """Return rows a second for each group size, and CPU microseconds a row at the largest."""
    found: dict[str, float] = {}
    for group in GROUPS:
        rows, took_s, cpu_s = _fill(folder / f"{group}.sqlite", group)
        found[f"sqlite_rows_per_s_at_{group}"] = rows / took_s
        found["sqlite_cpu_us"] = cpu_s / rows * 1e6
    return found


def _fill(path: Path, group: int) -> tuple[int, float, float]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    names = ", ".join(f"c{number}" for number in range(_COLUMNS))
    connection.execute(f"create table rows (number integer primary key, {names})")
    statement = f"insert into rows values ({','.join('?' * (_COLUMNS + 1))})"
    body = [os.urandom(24), 1234, 3, "good", 215, 90, "periodic", 1, 3, 47.5, "mqtt", 1 << 40]
    began, cpu, rows = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < _SECONDS:
        connection.execute("begin immediate")
        connection.executemany(statement, [[rows + at, *body] for at in range(group)])
        connection.execute("commit")
        rows += group
    took = rows, time.perf_counter() - began, time.process_time() - cpu
    connection.close()
    return took
