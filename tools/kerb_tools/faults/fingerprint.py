"""One number for all that a gateway's database says, to tell two states of it apart.

Rule: every row of every table counts; how SQLite lays them out does not.
"""

from __future__ import annotations

import hashlib
import sqlite3


def fingerprint(connection: sqlite3.Connection) -> str:
    """Return a digest of all tables' rows in the order of their keys."""
    digest = hashlib.blake2b(digest_size=12)
    tables = connection.execute(
        "select name from sqlite_schema where type = 'table' order by name"
    ).fetchall()
    for (table,) in tables:
        digest.update(f"\n{table}\n".encode())
        for row in connection.execute(f'select * from "{table}" order by rowid'):
            digest.update(repr(row).encode())
    return digest.hexdigest()


def done_mark(connection: sqlite3.Connection) -> int:
    """Return the stored mark up to which the outbox is done."""
    row = connection.execute("select value from meta where key = 'outbox_done'").fetchone()
    return 0 if row is None else int(row[0])
