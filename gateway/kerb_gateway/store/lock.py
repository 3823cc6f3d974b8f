"""One gateway a database: a lock beside the file, held as long as the process lives.

Rule: who does not get it does not open the database at all. SQLite before 3.51.3 can damage a file
that two processes checkpoint; and two gateways would give two readings one number.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kerb_gateway.errors import StoreError

_PID_MAX_BYTES = 20


def lock_path(path: Path) -> Path:
    """Return the lock file that belongs to a database."""
    return path.with_name(path.name + ".lock")


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the lock of a database; StoreError says who has it. The kernel frees a dead one's.

    The file stays: to remove it would let a third take a lock that a second one waits for.
    """
    lock = lock_path(path)
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{lock}: cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, _PID_MAX_BYTES).decode("ascii", "replace").strip() or "unknown"
            raise StoreError(
                f"{path}: process {holder} writes to it already; a database has one gateway only"
            ) from None
        except OSError as error:
            raise StoreError(f"{lock}: cannot be locked: {error.strerror}") from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name on it
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(file)
