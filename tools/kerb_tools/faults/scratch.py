"""Folders that a job needs while it runs; they go with it, however it ends.

Rule: who ends a job from outside calls `remove_all` once its processes are gone.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_open: set[Path] = set()


def memory() -> Path | None:
    """Return memory to put files in, where there is any."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


@contextlib.contextmanager
def folder(prefix: str, place: Path | None) -> Iterator[Path]:
    """Yield a new folder in a place (None: the system's own), which goes with the block.

    `keep` makes it stay.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=place)).resolve()
    _open.add(path)
    try:
        yield path
    finally:
        if path in _open:
            shutil.rmtree(path)
            _open.discard(path)


def keep(path: Path) -> None:
    """Let a folder stay: somebody will want to look into it."""
    _open.discard(path)


def remove_all() -> None:
    """Remove what is open; what cannot be removed stays."""
    for path in list(_open):
        shutil.rmtree(path, ignore_errors=True)
