"""Puts a prepared database in the place of the present one, which is kept aside under a number.

Rule: the restore counts from the moment when the prepared file has its second name; whoever opens
the database next goes on from wherever it was cut, always forward, and never deletes a database.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path

from kerb_gateway.errors import StoreError

PARTS = ("", "-wal", "-shm", "-journal")
_READY = re.compile(r"\.restored-([0-9]{1,9})\Z")


def staged(database: Path) -> Path:
    """Return where a restore prepares its file; what lies there counts for nothing."""
    return database.with_name(database.name + ".restoring")


def ready(database: Path, number: int) -> Path:
    """Return the second name of a prepared file."""
    return database.with_name(f"{database.name}.restored-{number}")


def aside(database: Path, number: int) -> Path:
    """Return where the present database goes."""
    return database.with_name(f"{database.name}.before-restore-{number}")


def free_number(database: Path) -> int:
    """Return a number under which nothing lies aside."""
    for number in itertools.count(1):
        names = [_part(aside(database, number), part) for part in PARTS]
        if not any(name.exists() for name in (*names, ready(database, number))):
            return number
    raise AssertionError("unreachable: the numbers do not end")


def _part(path: Path, part: str) -> Path:
    return path.with_name(path.name + part)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_staged(database: Path) -> bool:
    """Remove what a restore that was cut short had prepared; tell whether there was anything."""
    there = False
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            _part(staged(database), part).unlink()
            there = True
    return there


def pending(database: Path) -> int | None:
    """Return the number of a restore that counts and is not finished, or None; StoreError."""
    try:
        names = os.listdir(database.parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{database.parent}: {error.strerror}") from error
    for name in names:
        if name.startswith(database.name) and (match := _READY.match(name[len(database.name) :])):
            return int(match[1])
    return None


def commit(database: Path, number: int) -> None:
    """Give the prepared file its second name: from here on the restore is the truth."""
    os.rename(staged(database), ready(database, number))
    sync(database.parent)


def finish(database: Path) -> bool:
    """Put the prepared file in its place, if there is one; tell whether there was.

    StoreError when a file cannot be renamed. The old log goes away before the new file comes: a
    log is never beside a file that it does not belong to.
    """
    number = pending(database)
    if number is None:
        return False
    try:
        for part in PARTS:
            source = _part(database, part)
            if source.exists():
                os.rename(source, _part(aside(database, number), part))
        _part(database, ".suspect").unlink(missing_ok=True)
        sync(database.parent)
        os.rename(ready(database, number), database)
        sync(database.parent)
    except OSError as error:
        raise StoreError(f"{database}: a restore cannot be finished: {error.strerror}") from error
    return True
