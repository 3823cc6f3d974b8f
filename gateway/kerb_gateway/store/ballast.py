"""A file that only takes room, to be thrown off when the disk is full.

Rule: it is really written (a sparse file would free nothing), and only where there is plenty.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_PLENTY = 4  # times its size must be free before it is made


class Ballast:
    """`size_bytes` beside the database."""

    def __init__(self, database: Path, size_bytes: int) -> None:
        self._path = database.with_name(database.name + ".ballast")
        self._size_bytes = size_bytes

    def load(self) -> bool:
        """Make the file if it is missing and there is plenty of room; tell whether it is there.

        A ballast of nothing is always there.
        """
        if not self._size_bytes:
            return True
        if self._path.exists() and self._path.stat().st_size == self._size_bytes:
            return True
        free_bytes = shutil.disk_usage(self._path.parent).free
        if free_bytes < _PLENTY * self._size_bytes:
            return False
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True

    def drop(self) -> bool:
        """Throw it off; tell whether there was any."""
        there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return there
