"""One run of a board's chip: a MicroPython process and the three pipes to it.

Rule: the process never ends by itself; whoever owns it decides, and nothing of it is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerb_sim.board.console import SerialConsole
from kerb_sim.board.spec import BoardSpec

_PORT = Path(__file__).resolve().parents[1] / "port"
_LINE_MAX_BYTES = 65536
_EVENTS_MAX_BYTES = 60000
_LOOK_S = 0.001
_LOOKS = 30

Answer = Callable[[str, list[Any]], Any]


class _Streams:
    """The process's standard streams: console.log alone, or pipes to the serial console."""

    def __init__(self, spec: BoardSpec, stack: contextlib.ExitStack, *, wired: bool) -> None:
        self.to_chip = self.from_chip = -1
        if wired:
            self.stdin, self.to_chip = os.pipe()
            self.from_chip, self.stdout = os.pipe()
            stack.callback(os.close, self.stdin)
            stack.callback(os.close, self.stdout)
        else:
            self.stdin = asyncio.subprocess.DEVNULL
            self.stdout = stack.enter_context(spec.console_path.open("ab")).fileno()


class ChipProcess:
    """A started process; `answer` is called for each of its calls and returns the reply."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        replies: int,
        events: int,
        console: SerialConsole | None,
    ) -> None:
        self._process = process
        self._replies = replies
        self._events = events
        self._console = console
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        spec: BoardSpec,
        interpreter: Path,
        environment: dict[str, str],
        answer: Answer,
        console: SerialConsole | None = None,
    ) -> ChipProcess:
        """Start the chip; `answer` runs in this loop for every call that the firmware makes."""
        reply_read, reply_write = os.pipe()
        call_read, call_write = os.pipe()
        event_read, event_write = os.pipe()
        # The far ends must have the numbers that the stand-ins open: the shell places them.
        script = f'exec 3<&{reply_read} 4>&{call_write} 5<&{event_read}; exec "$@"'
        with contextlib.ExitStack() as stack:
            streams = _Streams(spec, stack, wired=console is not None)
            process = await asyncio.create_subprocess_exec(
                "/bin/bash",
                "-c",
                script,
                "board",
                str(interpreter),
                "-X",
                f"heapsize={spec.heap}",
                str(_PORT / "kerb_launch.py"),
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stdout,
                pass_fds=(reply_read, call_write, event_read),
                env=environment | {"MICROPYPATH": str(_PORT), "KERB_PORT": str(_PORT)},
                start_new_session=True,
            )
        for descriptor in (reply_read, call_write, event_read):
            os.close(descriptor)
        os.set_blocking(event_write, False)
        chip = cls(process, reply_write, event_write, console)
        if console is not None:
            console.plug(streams.to_chip, streams.from_chip, chip.interrupt)
        chip._reader = asyncio.ensure_future(chip._serve(call_read, answer))
        return chip

    _reader: asyncio.Future[None]

    async def _serve(self, descriptor: int, answer: Answer) -> None:
        reader = asyncio.StreamReader(limit=_LINE_MAX_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        try:
            while line := await reader.readline():
                operation, arguments = json.loads(line)
                try:
                    reply = answer(operation, arguments)
                except OSError as error:
                    reply = {"errno": error.errno}
                if reply is not Ellipsis:
                    with contextlib.suppress(BrokenPipeError):
                        os.write(self._replies, json.dumps(reply).encode() + b"\n")
        finally:
            transport.close()

    def event(self, *event: Any) -> bool:
        """Hand an event to the firmware; False if its pipe is full or gone."""
        try:
            os.write(self._events, json.dumps(event).encode() + b"\n")
        except OSError:
            return False
        return True

    def interrupt(self, looks: int = _LOOKS) -> None:
        """Raise KeyboardInterrupt in the running program, as Ctrl-C does on the port.

        Best while it waits: a signal in the middle of a garbage collection, which waits for the
        other thread without minding signals, can break the unix port (mpthreadport.c).
        """
        if looks and self._is_busy():
            asyncio.get_running_loop().call_later(_LOOK_S, self.interrupt, looks - 1)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)

    def _is_busy(self) -> bool:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/stat").read_text()
            return status.rpartition(")")[2].split()[0] == "R"
        return False

    def freeze(self) -> None:
        """Stop the process without ending it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGSTOP)

    async def kill(self) -> None:
        """End the process at once, as the power does, and free what it held."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        if self._console is not None:
            self._console.unplug()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        for name in ("_replies", "_events"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    async def wait(self) -> int:
        """Wait until the process has ended (it should not by itself); return its status."""
        return await self._process.wait()
