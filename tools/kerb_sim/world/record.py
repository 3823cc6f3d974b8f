"""The world's own record of a run: what was true and what was measured, line by line.

Rule: each row is flushed as it is written; nothing in it was computed by the code under test.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Record:
    """An append-only JSON lines file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **fields: Any) -> None:
        """Write one row with the time of CLOCK_BOOTTIME."""
        row = {"type": kind, "t_s": time.clock_gettime(time.CLOCK_BOOTTIME)} | fields
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
