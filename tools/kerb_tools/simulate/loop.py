"""An event loop on the simulated clock: sleeping costs nothing, and nothing runs beside it.

Rule: instead of waiting for the machine the loop lets the world go on; work for a thread is done
here, one piece after the other, after the time that the disk takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from kerb_gateway.errors import GatewayError, StoreError

from kerb_tools.simulate.timeline import Timeline

_RESOLUTION_S = 1e-6  # a year in seconds leaves a float no more
_QUERY_S = 0.0005
_WRITE_S = 0.01
_SLOW_ODDS = 0.01  # an SD card that tidies up
_SLOW_S = 3.0


class SimulatedLoop(BaseEventLoop):
    """One life of the gateway's process."""

    def __init__(self, timeline: Timeline, random: Random) -> None:
        super().__init__()
        self._timeline = timeline
        self._random = random
        self._disk_free_s = 0.0
        self.deaths: list[str] = []
        self._clock_resolution = _RESOLUTION_S
        self._ready: deque[asyncio.Handle]  # both are BaseEventLoop's own
        self._scheduled: list[asyncio.TimerHandle]

    def time(self) -> float:
        return self._timeline.now_s

    def _run_once(self) -> None:
        """Let the world go on until something is ready, then do what is.

        asyncio's own looks at sockets and measures its callbacks; an error in a callback, which it
        logs, ends the run here.
        """
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._due()
        if not ready:
            limit_s = scheduled[0].when() if scheduled else float("inf")
            self._timeline.advance(limit_s, ready)
        end_s = self._timeline.now_s + _RESOLUTION_S
        while scheduled and scheduled[0].when() < end_s:
            handle = self._due()
            ready.append(handle)
        for _ in range(len(ready)):
            one: Any = ready.popleft()
            if not one._cancelled:
                one._context.run(one._callback, *one._args)

    def _due(self) -> asyncio.TimerHandle:
        handle = heapq.heappop(self._scheduled)
        handle._scheduled = False  # type: ignore[attr-defined]
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers go when their time has come."""

    def _write_to_self(self) -> None:
        """There is no other thread that could wake this one."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do a piece of work for the store's thread, in its turn."""
        future = self.create_future()
        takes_s = _QUERY_S
        if func.__name__ == "_write":
            slow = self._random.random() < _SLOW_ODDS
            takes_s = self._random.uniform(0.1, _SLOW_S) if slow else _WRITE_S
        self._disk_free_s = max(self._timeline.now_s, self._disk_free_s) + takes_s
        self.call_at(self._disk_free_s, _work, future, func, args)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task of nobody's has died: of a failed write it may, of anything else it may not."""
        error = context.get("exception")
        if not isinstance(error, StoreError):
            self.deaths.append(f"{context['message']}: {error!r}")

    def bury(self) -> None:
        """Drop everything that the dead process had in memory."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(RuntimeError):  # its last words are not heard
                task.get_coro().close()
        self.close()


def _work(future: asyncio.Future[Any], work: Callable[..., Any], arguments: Any) -> None:
    try:
        result = work(*arguments)
    except GatewayError as error:
        if not future.cancelled():
            future.set_exception(error)
        return
    if not future.cancelled():
        future.set_result(result)
