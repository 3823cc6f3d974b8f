"""What a disk may hold after the power went: what was synced, and any part of the rest.

Rule: a sync of a file makes its earlier changes durable and nothing else; a directory's entries
are durable from its own sync on and keep their order, as in a journaling file system. Of the rest
any subset may have arrived, single writes torn at sectors, in any order, sectors in flight
garbled. What was synced is never touched: a card that lies about that is not the store's fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kerb_tools.faults.oplog import (
    ALLOCATE,
    CREATE,
    RENAME,
    SYNC,
    SYNC_DIRECTORY,
    TRUNCATE,
    UNLINK,
    WRITE,
    Change,
)

_ENTRIES = (CREATE, UNLINK, RENAME)


@dataclass(frozen=True)
class Pending:
    """A change that no sync has covered; file: what its name meant when it was made."""

    number: int
    change: Change
    file: int


@dataclass
class Disk:
    """Durable contents by file number, durable names, and what is still on its way."""

    files: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    _now: dict[str, int] = field(default_factory=dict)  # names as the process sees them
    taken: int = 0  # changes so far; the newest one's number
    _next: int = 0

    @classmethod
    def holding(cls, contents: dict[str, bytes]) -> Disk:
        """Return a disk on which all of this is durable."""
        disk = cls()
        for name, content in contents.items():
            number = disk._new()
            disk.files[number] = bytearray(content)
            disk.names[name] = disk._now[name] = number
        return disk

    def _new(self) -> int:
        self._next += 1
        return self._next

    def take(self, change: Change) -> None:
        """Take the next change of the recording."""
        self.taken += 1
        if change.kind == SYNC:
            self._settle([one for one in self.pending if self._is_content_of(one, change.name)])
        elif change.kind == SYNC_DIRECTORY:
            self._settle([one for one in self.pending if one.change.kind in _ENTRIES])
        elif change.kind in _ENTRIES:
            self._entry(change)
        else:
            self._add(change, self._now[change.name])

    def _is_content_of(self, one: Pending, name: str) -> bool:
        return one.change.kind not in _ENTRIES and one.file == self._now.get(name)

    def _entry(self, change: Change) -> None:
        if change.kind == CREATE:
            self._now[change.name] = self._new()
            self.files[self._now[change.name]] = bytearray()
        self._add(change, self._now[change.name])
        if change.kind != CREATE:
            number = self._now.pop(change.name)
            if change.kind == RENAME:
                self._now[change.data.decode()] = number

    def _add(self, change: Change, file: int) -> None:
        self.pending.append(Pending(self.taken, change, file))

    def _settle(self, done: list[Pending]) -> None:
        for one in done:
            apply(self.files, self.names, one, one.change)
        settled = {one.number for one in done}
        self.pending = [one for one in self.pending if one.number not in settled]

    def after(self, arrived: Iterable[tuple[Pending, Change]]) -> dict[str, bytes]:
        """Return the files by name if these pending changes, so altered, have arrived."""
        changes = list(arrived)
        files = dict(self.files)
        names = dict(self.names)
        for file in {one.file for one, _ in changes}:
            files[file] = bytearray(self.files[file])
        for one, change in changes:
            apply(files, names, one, change)
        return {name: bytes(files[number]) for name, number in names.items()}


def apply(
    files: dict[int, bytearray], names: dict[str, int], one: Pending, change: Change
) -> None:
    """Carry out one change; a hole that a later write leaves reads as zeros."""
    if change.kind == CREATE:
        names[change.name] = one.file
    elif change.kind == UNLINK:
        names.pop(change.name, None)
    elif change.kind == RENAME:
        names.pop(change.name, None)
        names[change.data.decode()] = one.file
    else:
        _content(files[one.file], change)


def _content(content: bytearray, change: Change) -> None:
    size = change.offset
    if change.kind == WRITE:
        size += len(change.data)
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if change.kind == WRITE:
        content[change.offset : size] = change.data
    elif change.kind == TRUNCATE:
        del content[size:]
    elif change.kind != ALLOCATE:
        raise ValueError(f"not a content's change: {change.kind}")
