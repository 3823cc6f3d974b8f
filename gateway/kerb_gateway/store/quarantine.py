"""What happens to a damaged database: it is put aside whole, never repaired and never deleted.

Rule: damage met while running is noted in a file beside the database, so that the next start looks
at the whole file before it trusts it; a start without such a note does not read it all.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from pathlib import Path

_PARTS = ("", "-wal", "-shm")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".suspect")


def suspect(path: Path) -> None:
    """Note that the file may be damaged."""
    with contextlib.suppress(OSError):  # a disk that takes no note will say so again
        _note(path).touch()


def is_suspect(path: Path) -> bool:
    """Tell whether damage was noted."""
    return _note(path).exists()


def is_sound(path: Path) -> bool:
    """Read the whole file; if it is sound the note goes."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            sound = bool(connection.execute("pragma quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        sound = False
    if sound:
        _note(path).unlink(missing_ok=True)
    return sound


def put_aside(path: Path) -> Path:
    """Rename a noted file and what belongs to it; returns the new name of the file.

    The note stays until forget(): who is killed in between goes on where it stopped.
    """
    asides = (path.with_name(f"{path.name}.damaged-{n}") for n in itertools.count(1))
    before = list(itertools.takewhile(Path.exists, asides))
    cut_short = bool(before) and not path.exists()
    aside = path.with_name(f"{path.name}.damaged-{len(before) + (not cut_short)}")
    for part in _PARTS:
        source = path.with_name(path.name + part)
        if source.exists():
            source.rename(aside.with_name(aside.name + part))
    return aside


def forget(path: Path) -> None:
    """Remove the note: a new file says by itself that the old one was put aside."""
    _note(path).unlink(missing_ok=True)
