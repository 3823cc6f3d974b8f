"""Reads what the preloaded library recorded: every change of a directory's files, in order.

Rule: a record that is cut short is an error, never the end of the log: half a recording proves
nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.faults.errors import FaultsError

CREATE, WRITE, TRUNCATE, ALLOCATE = "c", "w", "t", "a"
SYNC, SYNC_DIRECTORY, UNLINK, RENAME = "s", "d", "u", "r"
_HEAD = struct.Struct("<BBHIQ")


@dataclass(frozen=True)
class Change:
    """One change; offset: where a write begins, or the size after a truncate or allocation.

    data: what was written, or a rename's new name.
    """

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


def read(path: Path) -> list[Change]:
    """Return all changes; FaultsError if the last one is not whole."""
    raw = path.read_bytes()
    changes, at = [], 0
    while at < len(raw):
        if at + _HEAD.size > len(raw):
            raise FaultsError(f"{path.name}: ends in the middle of a record")
        kind, name_bytes, _, data_bytes, offset = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        name = raw[at : at + name_bytes].decode()
        at += name_bytes
        data = raw[at : at + data_bytes]
        at += data_bytes
        if at > len(raw):
            raise FaultsError(f"{path.name}: ends in the middle of a record")
        changes.append(Change(chr(kind), name, offset, data))
    return changes
