"""A virtual board with a serial port, held in a thread: a test can run real tools on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from boards import NODE_ID, BareWorld
from kerb_sim.air.medium import Air
from kerb_sim.board.spec import BoardSpec, manufacture
from kerb_sim.board.virtual import VirtualBoard
from streets import interpreter

Result = TypeVar("Result")
_CALL_S = 30.0


class HeldBoard:
    """A powered-off board, blank as it is bought unless `more` of its BoardSpec says otherwise."""

    def __init__(self, directory: Path, identity: bytes = b"", **more: Any) -> None:
        self.spec = BoardSpec(NODE_ID, directory, identity, console=True, **more)
        manufacture(self.spec)
        self.world = BareWorld()
        self._interpreter = interpreter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> HeldBoard:
        self._thread.start()
        self.board = self.run(self._make())
        self.port = str(self.board.serial_port)
        return self

    async def _make(self) -> VirtualBoard:
        return VirtualBoard(self.spec, self.world, interpreter=self._interpreter, air=Air(1))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Let the board's loop do something and return what came of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    def power_on(self) -> None:
        self.run(self.board.power_on())

    def turn(self, word: str) -> None:
        """Do what a supply's switch does: on, off, or reset."""
        if word == "on":
            self.power_on()
        elif word == "off":
            self.run(self.board.power_cut())
        else:
            self.reset()

    def reset(self) -> None:
        """Press the reset button, which no tool can do through a pty."""
        self.run(self.board.press_reset())

    def wait_for(self, *states: str, timeout_s: float = 10.0) -> str:
        return self.run(self.board.wait_for(*states, timeout_s=timeout_s))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run(self.board.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
