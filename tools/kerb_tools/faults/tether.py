"""Ties a job's processes to the campaign: when that ends, however it ends, none of them stays.

Rule: the tie is a pipe that only the campaign can write to, and never does. Its end is closed by
the kernel also when the campaign is killed; whoever holds the other end then kills all that it
has started, orphans and processes in sessions of their own included, and ends itself.

Why a pipe: PR_SET_PDEATHSIG reaches one generation, so a worker's gateways, brokers and boards
would each have to ask for it, and a process group does not reach who leads a session of his own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from kerb_tools.faults import scratch

_SUBREAPER = 36  # prctl(2), PR_SET_CHILD_SUBREAPER: orphans become ours, not init's
_PPID_FIELD = 1  # of /proc/PID/stat behind the name in brackets: state, ppid
_STATE_FIELD = 0


def hold(end: Connection) -> None:
    """Begin to watch the pipe's end; for a worker's main thread, before its first job."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    over = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal's; the campaign hears it too
    # The pool's, once one worker is gone: at once it would end this one before what it started.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # The main thread starts the processes: it is held up, so that it starts no more of them.
    signal.signal(signal.SIGUSR2, lambda *_: over.wait())
    main = threading.main_thread().ident
    assert main is not None
    # No daemon: a worker that the pool tells to end waits here for what it has started.
    threading.Thread(target=_watch, args=(end, main)).start()


def _watch(end: Connection, main: int) -> None:
    try:
        end.recv_bytes()
    except (EOFError, OSError):
        pass
    signal.pthread_kill(main, signal.SIGUSR2)
    while found := descendants(os.getpid()):
        for pid in found:
            _kill(pid)
    scratch.remove_all()
    os._exit(1)


def descendants(root: int) -> list[int]:
    """Return the living processes that `root` has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (parent := _parent(path)) is not None:
            children.setdefault(parent, []).append(int(path.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def _parent(process: Path) -> int | None:
    """Return a process's parent; None for one that has ended, and waits to be read or is gone."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE_FIELD] in "ZX" else int(fields[_PPID_FIELD])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
