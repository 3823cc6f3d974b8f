"""An event loop that does a thread's work itself, at once.

Rule: for jobs with one caller at a time. There a thread changes nothing but the time: each
hand-over costs two changes of thread, and a power-cut state has a dozen of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class InlineLoop(asyncio.SelectorEventLoop):
    """`run_in_executor` returns when the work is done, as a future that has its answer."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work; its error is the future's."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  handed to who awaits it, as a pool does
            future.set_exception(error)
        return future
