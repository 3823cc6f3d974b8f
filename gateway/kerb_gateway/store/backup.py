"""A copy of the database while it is written to: page by page, whole or not there at all.

Rule: the copy has another name until it is complete, on disk and has been read as sound; an old
file is never overwritten; nothing here changes the database. docs/decisions/0008 says why it is
the writer's own connection that is read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from kerb_gateway.errors import CopyError, StoreError
from kerb_gateway.store import files, install

_PAGES = 128  # of one step: half a megabyte, for which a COMMIT may have to wait
_PAUSE_S = 0.02
_LOOK_STEPS = 100_000  # of SQLite's machine, between two looks at whether to stop reading
_RESERVE_BYTES = 32 * 1024 * 1024  # stays free where the gateway itself writes
_OWN = ("", "-wal", "-shm", "-journal", ".lock", ".sock", ".suspect", ".ballast", ".restoring")

Progress = Callable[[int, int], None]  # pages copied, pages in all


def partial(file: Path) -> Path:
    """Return the name of a copy that is not complete."""
    return file.with_name(file.name + ".partial")


def refusal(file: Path, database: Path) -> str | None:
    """Return why a backup cannot go to `file`, or None."""
    try:
        return _refusal(file, database)
    except StoreError as error:
        return str(error)


def _refusal(file: Path, database: Path) -> str | None:
    """As refusal(); StoreError if a place cannot be looked at."""
    if not file.is_absolute():
        return f"{file}: not an absolute path"
    if not files.is_folder(file.parent):
        return f"{file.parent}: there is no such folder"
    if file.parent.resolve() == database.parent.resolve() and file.name in {
        database.name + end for end in _OWN
    }:
        return f"{file}: that name belongs to the gateway's own database"
    if files.mode_of(file, follow_symlinks=False):
        return f"{file}: is there already, and is never overwritten"
    return None


def take(
    source: sqlite3.Connection,
    database: Path,
    file: Path,
    progress: Progress,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Copy an open database to `file`; returns its bytes. CopyError says why there is no copy.

    progress: called after each step; stopped: whether to give up. Blocks: not for an event loop.
    """

    def step(done: int, total: int) -> None:
        if stopped():
            raise CopyError(f"{file}: the gateway stops")
        progress(done, total)

    why = refusal(file, database)
    if why is not None:
        raise CopyError(why)
    copy = partial(file)
    try:
        copy.unlink(missing_ok=True)  # of one that was killed
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _copy(source, database, copy, step)
        install.sync(copy)
        why_not = unsound(copy, stopped)
        if why_not is not None:
            raise CopyError(f"{file}: the copy is not sound: {why_not}")
        if file.exists():
            raise CopyError(f"{file}: has come meanwhile, and is never overwritten")
        os.rename(copy, file)
        install.sync(file.parent)
        return file.stat().st_size
    except sqlite3.Error as error:
        raise CopyError(_sentence(file, error)) from error
    except OSError as error:
        raise CopyError(f"{file}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)


def _sentence(file: Path, error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return f"{file}: there is no room for the backup; the gateway is not touched"
    return f"{file}: {error}"


def _copy(source: sqlite3.Connection, database: Path, copy: Path, progress: Progress) -> None:
    shared_disk = copy.stat().st_dev == database.stat().st_dev

    def step(status: int, remaining: int, total: int) -> None:
        if shared_disk and shutil.disk_usage(copy).free < _RESERVE_BYTES:
            raise CopyError(f"{copy.parent}: less than {_RESERVE_BYTES >> 20} MB would stay free")
        progress(total - remaining, total)
        time.sleep(_PAUSE_S)

    with contextlib.closing(
        sqlite3.connect(copy, isolation_level=None, check_same_thread=False)
    ) as target:
        # It is synced once, when it is complete, and nobody opens it before.
        target.execute("pragma synchronous = off")
        target.execute("pragma journal_mode = off")
        source.backup(target, pages=_PAGES, progress=step, sleep=_PAUSE_S)
        target.execute("pragma journal_mode = delete")  # one file, without a log beside it


def unsound(file: Path, stopped: Callable[[], bool] = lambda: False) -> str | None:
    """Read a whole copy; returns what is wrong with it, or None."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as connection:
            connection.set_progress_handler(stopped, _LOOK_STEPS)
            said = str(connection.execute("pragma integrity_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return None if said == "ok" else said


def take_closed(database: Path, file: Path, progress: Progress) -> int:
    """Copy a database that no gateway has open, reading it only; as take(), or StoreError."""
    if install.pending(database) is not None:
        raise CopyError(f"{database}: a restore is not finished; start the gateway first")
    if not files.is_file(database):
        raise CopyError(f"{database}: there is no such file, and no gateway runs")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            connection.isolation_level = None
            connection.execute("begin")  # one view: a gateway that starts now does not disturb it
            connection.execute("select count(*) from sqlite_master").fetchone()
            return take(connection, database, file, progress)
    except sqlite3.Error as error:
        raise CopyError(f"{database}: {error}") from error
