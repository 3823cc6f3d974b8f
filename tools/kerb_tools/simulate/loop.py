"""An event loop on the simulated clock: sleeping costs nothing, and nothing runs beside it.

Rule: a timer is an event of the timeline like any other, so several loops can live on one; what
has become ready runs at once, in one turn. Work for a thread is done here, one piece after the
other, after the time that the disk takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import events
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any

from kerb_gateway.errors import GatewayError, StoreError

from kerb_tools.simulate.timeline import Timeline

_QUERY_S = 0.0005
_WRITE_S = 0.01
_SLOW_ODDS = 0.01  # an SD card that tidies up
_SLOW_S = 3.0


class SimulatedLoop(BaseEventLoop):
    """One life of a gateway's process."""

    def __init__(self, timeline: Timeline, random: Random) -> None:
        super().__init__()
        self._timeline = timeline
        self._random = random
        self._disk_free_s = 0.0
        self.deaths: list[str] = []
        self._ready: deque[asyncio.Handle]  # BaseEventLoop's own

    def time(self) -> float:
        return self._timeline.now_s

    @property
    def ready(self) -> deque[asyncio.Handle]:
        """What waits for its turn."""
        return self._ready

    def turn(self) -> None:
        """Do what is ready and what becomes ready by that; an error in a callback ends the run.

        asyncio's own looks at sockets, measures its callbacks and logs their errors.
        """
        ready = self._ready
        events._set_running_loop(self)
        try:
            while ready:
                one: Any = ready.popleft()
                if not one._cancelled:
                    one._context.run(one._callback, *one._args)
        finally:
            events._set_running_loop(None)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Plan a call; a cancelled one passes by when its time has come."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timeline.at(when, self._due, timer)
        return timer

    def _due(self, timer: asyncio.TimerHandle) -> None:
        if not timer._cancelled and not self._closed:  # type: ignore[attr-defined]
            self._ready.append(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing is counted."""

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
        if not isinstance(error, StoreError | SystemExit):
            self.deaths.append(f"{context['message']}: {error!r}")

    def bury(self) -> None:
        """Drop everything that the dead process had in memory."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(RuntimeError):  # its last words are not heard
                task.get_coro().close()
        self._ready.clear()
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
