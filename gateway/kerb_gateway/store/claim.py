"""Who may write the database: one process at a time, by a lock on a file beside it.

Rule: the lock belongs to a process and ends with it, also when it is killed; the file itself
stays, because removing it would let two processes hold two different locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path

from kerb_gateway.errors import StoreError

_LOOK_S = 0.1
_PID_MAX_BYTES = 20


class Claim:
    """The right to write one database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".lock")
        self._file: int | None = None

    def take(self) -> bool:
        """Take it if nobody has it; StoreError when the lock's file cannot be made."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error
        if os.geteuid() == 0:  # made by root's command line, it must serve the gateway's user too
            folder = self._path.parent.stat()
            os.fchown(file, folder.st_uid, folder.st_gid)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        with contextlib.suppress(OSError):  # a full disk: it holds without a name on it
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d\n" % os.getpid(), 0)
        self._file = file
        return True

    def holder(self) -> str:
        """Return the number of the process that has it, as far as it is known."""
        try:
            text = self._path.read_bytes()[:_PID_MAX_BYTES]
        except OSError:
            return "unknown"
        return text.decode("ascii", "replace").strip() or "unknown"

    async def wait(self, seconds: float) -> None:
        """Take it, waiting for a command that is at work; StoreError when it is not given up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.take():
            if loop.time() >= deadline:
                raise StoreError(
                    f"{self._database}: process {self.holder()} writes to it already; "
                    "a database has one gateway only"
                )
            await asyncio.sleep(_LOOK_S)

    def give_back(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
