"""The switches of the preloaded library: a shared page that tester and process both see.

Rule: the layout is `struct control` of disk_faults.c; a switch acts from the next call on.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_LAYOUT = "<qiiii"
_BYTES = struct.calcsize(_LAYOUT)


class Control:
    """The switches of one process; close() when it has ended."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _BYTES)

    def wall_offset(self, offset_ms: int) -> None:
        """Let the wall clock be wrong by so much."""
        self._page[0:8] = struct.pack("<q", offset_ms)

    def sync_delay(self, delay_ms: int) -> None:
        """Let each sync take so much longer."""
        self._page[8:12] = struct.pack("<i", delay_ms)

    def sync_error(self, number: int) -> None:
        """Let each sync fail with this errno; 0: none."""
        self._page[12:16] = struct.pack("<i", number)

    def write_error(self, number: int) -> None:
        """Let each write fail with this errno; 0: none."""
        self._page[16:20] = struct.pack("<i", number)

    @property
    def syncs(self) -> int:
        """Syncs that the process has asked for."""
        return int(struct.unpack("<i", self._page[20:24])[0])

    def close(self) -> None:
        """Let the page go."""
        self._page.close()
