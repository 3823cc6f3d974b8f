"""The backup that an operator asked of the running gateway: one at a time, and how far it is.

Rule: it runs in a thread of its own; whatever becomes of it, the gateway goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerb_gateway.errors import CopyError, StoreError
from kerb_gateway.service.protocol import BadRequest
from kerb_gateway.store import backup
from kerb_gateway.store.database import Store

RUNNING, DONE, FAILED = "running", "done", "failed"

Log = Callable[..., Any]


@dataclass
class _Copy:
    """One backup."""

    file: Path
    state: str = RUNNING
    pages_done: int = 0
    pages: int = 0
    bytes: int = 0
    why: str | None = None


class Backups:
    """Begins backups and remembers the newest."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self._newest: _Copy | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, file: Path, who: str) -> dict[str, Any]:
        """Begin a backup; BadRequest when it cannot be."""
        if self._newest is not None and self._newest.state == RUNNING:
            raise BadRequest(f"a backup to {self._newest.file} is running")
        why = backup.refusal(file, self._store.path)
        if why is not None:
            raise BadRequest(why)
        self._newest = _Copy(file)
        self._log("backup begun", file=str(file), who=who)
        self._task = asyncio.ensure_future(self._make(self._newest))
        return self.state()

    async def _make(self, copy: _Copy) -> None:
        def progress(done: int, total: int) -> None:
            copy.pages_done, copy.pages = done, total

        try:
            copy.bytes = await self._store.copy_to(copy.file, progress)
        except (CopyError, StoreError) as error:
            self._failed(copy, str(error))
        except Exception as error:  # nobody's foresight: without this it would run for ever
            self._failed(copy, repr(error))
            raise
        else:
            copy.state = DONE
            self._log("backup done", file=str(copy.file), bytes=copy.bytes)

    def _failed(self, copy: _Copy, why: str) -> None:
        copy.state, copy.why = FAILED, why
        self._log("backup failed", file=str(copy.file), why=why)

    def state(self) -> dict[str, Any]:
        """Return how far the newest one is; BadRequest when there was none."""
        if self._newest is None:
            raise BadRequest("no backup was asked for since the start")
        copy = self._newest
        return {
            "file": str(copy.file),
            "state": copy.state,
            "pages_done": copy.pages_done,
            "pages": copy.pages,
            "bytes": copy.bytes,
            "why": copy.why,
        }
