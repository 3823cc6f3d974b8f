"""The one writing connection, in a thread of its own, and read-only ones beside it.

Rule: a batch of operations is one transaction with synchronous=FULL; it counts as a whole or not
at all. Only this connection writes and checkpoints. A full disk is StoreFull (wait), a damaged
file StoreCorrupt (put aside at the next start), any other failure StoreError (end at once: after
a failed fsync nobody knows what is on the disk).
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from kerb_gateway.errors import StoreCorrupt, StoreError, StoreFull
from kerb_gateway.store import backup, install, quarantine
from kerb_gateway.store.migrations import migrate

Result = TypeVar("Result")


@dataclass(frozen=True)
class Many:
    """One statement over many rows; bind: makes a row's values, where and when they are bound."""

    statement: str
    rows: Sequence[Any]
    bind: Callable[[Any], Sequence[Any]] | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do it, as often as asked."""
        connection.executemany(self.statement, self._values(self.rows))

    def _values(self, rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
        return rows if self.bind is None else map(self.bind, rows)


class Inserts(Many):
    """An insert that ends with the values of its one row, over many rows.

    Each step of a statement gives the interpreter away and waits to have it back; so many rows
    share one.
    """

    def run(self, connection: sqlite3.Connection) -> None:
        whole = len(self.rows) - len(self.rows) % _ROWS_A_STATEMENT
        if whole:
            statement = _for_rows(self.statement, _ROWS_A_STATEMENT)
            groups = (
                self.rows[at : at + _ROWS_A_STATEMENT] for at in range(0, whole, _ROWS_A_STATEMENT)
            )
            chained = chain.from_iterable
            connection.executemany(
                statement, (list(chained(self._values(rows))) for rows in groups)
            )
        connection.executemany(self.statement, self._values(self.rows[whole:]))


@cache
def _for_rows(statement: str, rows: int) -> str:
    """Return an insert of one row's values as one of many rows'."""
    head, _, values = statement.rpartition("values ")
    return f"{head}values {','.join([values] * rows)}"


Operation = tuple[str, Sequence[Any]] | Many

_ROWS_A_STATEMENT = 64  # of 33 values: far below SQLite's 32,766 variables
_WAL_PAGES = 1000  # checkpoint at 4 MB
PUT_ASIDE = "put_aside"  # meta: the name of a damaged file, until that is said upstream
WAL_MAX_BYTES = 16 * 1024 * 1024
_BUSY_MS = 2000


def _sync_what_was_found(connection: sqlite3.Connection) -> None:
    """Make durable what a killed predecessor left.

    Its last transaction may stand whole in the log without a sync. It is believed from now on, so
    no power cut may take it back; a checkpoint syncs the log before it does anything else.
    """
    try:
        connection.execute("pragma wal_checkpoint(passive)").fetchall()
    except sqlite3.OperationalError as error:
        # Full is what the database's own file is: by then the log is synced.
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
            raise


class Store:
    """An open database; every method is awaited from the event loop."""

    def __init__(
        self,
        path: Path,
        *,
        connect: Callable[..., sqlite3.Connection] | None = None,
        mends: bool = True,
    ) -> None:
        """connect: what opens the file, in place of sqlite3's own; mends: put a damaged file aside
        and begin a new one, instead of StoreCorrupt.
        """
        self._path = path
        self._mends = mends
        self._connect_to = connect or sqlite3.connect
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._failure: StoreError | None = None
        self._failed = asyncio.Event()
        self.gw_epoch = ""
        self.put_aside: Path | None = None  # where a damaged file lies, if there was one
        self.restore_cut = False  # a restore did not come far enough: the old file stands
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="backup")
        self._closing = False

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._path

    async def open(self) -> None:
        """Open or make the file at this schema; StoreError says what is in the way."""
        await self._run(self._open)

    def _open(self) -> None:
        install.finish(self._path)
        self.restore_cut = install.remove_staged(self._path)
        if quarantine.is_suspect(self._path) and not quarantine.is_sound(self._path):
            self._begin_anew()
            return
        try:
            self._connect()
        except StoreCorrupt:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Put a damaged file aside; the new one keeps its name until that has been said."""
        if not self._mends:
            raise StoreCorrupt(f"{self._path}: damaged; the gateway puts it aside when it starts")
        self.put_aside = quarantine.put_aside(self._path)
        self._connect()
        row = [PUT_ASIDE, self.put_aside.name]
        self._open_connection().execute("insert or replace into meta values (?,?)", row)
        quarantine.forget(self._path)

    def _connect(self) -> None:
        connection = None
        try:
            connection = self._connect_to(
                self._path, isolation_level=None, check_same_thread=False
            )
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute(f"pragma busy_timeout = {_BUSY_MS}")
            connection.execute(f"pragma wal_autocheckpoint = {_WAL_PAGES}")
            connection.execute(f"pragma journal_size_limit = {WAL_MAX_BYTES}")
            migrate(connection)
            connection.isolation_level = None
            connection.execute(
                "insert or ignore into meta values ('gw_epoch', ?)", [secrets.token_hex(8)]
            )
            row = connection.execute("select value from meta where key = 'gw_epoch'").fetchone()
            _sync_what_was_found(connection)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self._translated(error) from error
        self._connection = connection
        self.gw_epoch = str(row[0])

    def _translated(self, error: sqlite3.Error) -> StoreError:
        """Return our error for SQLite's; damage is remembered for the next start."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        text = f"{self._path}: {error}"
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(text)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            quarantine.suspect(self._path)
            return StoreCorrupt(text)
        return StoreError(text)

    async def _run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        # Shielded: a batch whose waiter is cancelled (SIGTERM) is still written, in its turn.
        # Dropped from the queue it would be lost, while the memory already counts on it.
        return await asyncio.shield(loop.run_in_executor(self._thread, work, *arguments))

    async def write(self, operations: Sequence[Operation]) -> None:
        """Do all operations in one transaction; on return they are durable. StoreError else.

        After any error but a full disk nothing is written any more: see failure().
        """
        if not operations:
            return
        try:
            await self._run(self._write, list(operations))
        finally:
            if self._failure is not None:
                self._failed.set()

    async def failure(self) -> None:
        """Wait for the error after which the process must end, whoever met it; raises it."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    def _write(self, operations: list[Operation]) -> None:
        if self._failure is not None:
            raise self._failure
        connection = self._open_connection()
        try:
            self._transact(connection, operations)
        except sqlite3.Error as error:
            translated = self._translated(error)
            if not isinstance(translated, StoreFull):
                self._failure = translated
            raise translated from error

    @staticmethod
    def _transact(connection: sqlite3.Connection, operations: list[Operation]) -> None:
        connection.execute("begin immediate")
        try:
            for operation in operations:
                if isinstance(operation, Many):
                    operation.run(connection)
                else:
                    connection.execute(*operation)
            connection.execute("commit")
        finally:
            # After any error, not SQLite's alone: a number too great for a column is an
            # OverflowError, and a transaction that it left open would let no later one begin.
            if connection.in_transaction:
                connection.execute("rollback")

    async def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a bounded query, on the writer's own view."""
        return await self._run(self._query, statement, parameters)

    def _query(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._open_connection().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return all rows of a bounded query as {column: value}."""
        return await self._run(self._rows, statement, parameters)

    def _rows(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        try:
            cursor = self._open_connection().execute(statement, parameters)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    async def copy_to(self, file: Path, progress: backup.Progress) -> int:
        """Make a backup beside all else; returns its bytes. CopyError, which hurts nothing here.

        progress: called in another thread.
        """
        source = self._open_connection()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._copier, backup.take, source, self._path, file, progress, lambda: self._closing
        )

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log; more than WAL_MAX_BYTES: somebody pins it."""
        wal = self._path.with_name(self._path.name + "-wal")
        try:
            return wal.stat().st_size
        except FileNotFoundError:
            return 0

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the database is not open")
        return self._connection

    async def close(self) -> None:
        """Close the file; a clean close checkpoints the write-ahead log, a backup ends."""
        self._closing = True
        await asyncio.get_running_loop().run_in_executor(self._copier, lambda: None)
        self._copier.shutdown()
        await self._run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
