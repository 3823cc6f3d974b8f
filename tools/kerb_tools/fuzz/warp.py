"""An event loop whose clock jumps to the next timer: waits cost nothing, and a deadlock is seen.

Rule: one thread; what a pool would do (the store's work) is done in its turn by the loop itself.
When nothing is left that could ever happen, that is Stuck, not a hang.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kerb_gateway.clock import Moment

from kerb_tools.fuzz.target import Broken

Result = TypeVar("Result")
_START_S = 1000.0


class Stuck(Broken):
    """Everybody waits for something that nobody will do."""


class _Selector(selectors.SelectSelector):
    """Asks the sockets, but never waits for a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: WarpLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        if loop is None or (timeout is not None and timeout <= 0):
            return super().select(0)
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Stuck("nothing is left that could happen")
        loop.now_s += timeout
        return []


class WarpLoop(asyncio.SelectorEventLoop):
    """The loop; `now_s` is its clock."""

    def __init__(self) -> None:
        selector = _Selector()
        self.now_s = _START_S
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Return the clock that the timers go by."""
        return self.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work at the loop's next turn."""
        future = self.create_future()
        self.call_soon(self._do, future, func, args)
        return future

    @staticmethod
    def _do(future: asyncio.Future[Any], func: Callable[..., Any], args: Any) -> None:
        if future.cancelled():
            return
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  handed to who awaits it, as a pool does
            future.set_exception(error)


class WarpClock:
    """The gateway's clock, told by the loop's."""

    def boottime_ms(self) -> int:
        """Milliseconds of the running loop's clock."""
        return int(asyncio.get_running_loop().time() * 1000)

    def now(self) -> Moment:
        """This moment; nobody keeps wall time right."""
        return Moment("fuzz", self.boottime_ms(), self.boottime_ms(), "none")


def run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run `work` in a loop of its own; errors that only a loop hears of are raised here."""
    loop = WarpLoop()
    unheard: list[BaseException] = []
    loop.set_exception_handler(lambda _, told: _hear(told, unheard))
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(work())
        loop.run_until_complete(_end_all())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    for error in unheard:
        raise error
    return result


def _hear(told: dict[str, Any], unheard: list[BaseException]) -> None:
    error = told.get("exception")
    unheard.append(error if error is not None else Broken(str(told.get("message"))))


async def _end_all() -> None:
    """Cancel what still runs; what one of them died of is an error like any other."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    for end in await asyncio.gather(*others, return_exceptions=True):
        if isinstance(end, Exception):
            raise end
