"""A board's USB serial port: a pty that a tool opens by its path.

Rule: the port outlives the chip's resets, as a USB adapter does. What the chip says is always in
console.log; a tool gets it only while it has the port open. A pty has no DTR and RTS, so a tool
cannot reset this board: its owner does, by VirtualBoard.press_reset().
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import tty
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 4096
_QUEUE_BYTES = 65536
_LOOK_S = 0.02
_INTERRUPT_GAP_S = 0.1
_LATER_S = 0.005
_CTRL_C = b"\x03"
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n")


class SerialConsole:
    """One serial port; plug() joins it to a chip that has just started."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.path = Path(os.ttyname(slave))
        os.close(slave)  # from here on the tool's end is open only while a tool has it open
        self._poll = select.poll()
        self._poll.register(self._master, select.POLLIN)
        self._looking: asyncio.TimerHandle | None = None
        self._waiting = bytearray()
        self._input = self._output = -1
        self._interrupt: Callable[[], None] | None = None
        self._attentive = False
        self._next_interrupt_s = 0.0

    # --- the chip's end ---

    def plug(self, chip_input: int, chip_output: int, interrupt: Callable[[], None]) -> None:
        """Take the pipes of a chip; `interrupt` raises KeyboardInterrupt in its program."""
        self._input, self._output, self._interrupt = chip_input, chip_output, interrupt
        os.set_blocking(chip_input, False)
        os.set_blocking(chip_output, False)
        asyncio.get_running_loop().add_reader(chip_output, self._from_chip)
        if self._looking is None:
            self._look()

    def attend(self, on: bool) -> None:
        """While on, Ctrl-C interrupts the program; else it is a byte like any other."""
        self._attentive = on
        self._next_interrupt_s = 0.0

    def interrupt_later(self) -> None:
        """Ctrl-C came at a bad moment: raise it again when that has passed."""
        asyncio.get_running_loop().call_later(_LATER_S, self._raise_again)

    def _raise_again(self) -> None:
        if self._attentive and self._interrupt is not None:
            self._interrupt()

    def unplug(self) -> None:
        """The chip has stopped: take its last words, then let go of it."""
        if self._output < 0:
            return
        asyncio.get_running_loop().remove_reader(self._output)
        while self._from_chip():
            pass
        os.close(self._input)
        os.close(self._output)
        self._input = self._output = -1
        self._attentive = False

    def close(self) -> None:
        """Take the port away."""
        self.unplug()
        self._nobody()
        if self._looking is not None:
            self._looking.cancel()
        os.close(self._master)

    def _from_chip(self) -> bool:
        """Carry what the chip says now; False: nothing more."""
        try:
            data = os.read(self._output, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:  # the process has ended; unplug() follows
            asyncio.get_running_loop().remove_reader(self._output)
            return False
        with self._log.open("ab") as log:
            log.write(data)
        if self.is_open():
            # The port's stdout is "cooked"; a bare newline of sys.stdout.buffer is too, here.
            self._waiting += _BARE_NEWLINE.sub(b"\r\n", data)
            self._to_tool()
        return True

    # --- the tool's end ---

    def is_open(self) -> bool:
        """Whether a tool has the port open."""
        return not any(event & select.POLLHUP for _, event in self._poll.poll(0))

    def _look(self) -> None:
        """Wait until a tool opens the port; a pty tells that only when it is asked."""
        loop = asyncio.get_running_loop()
        if self.is_open():
            loop.add_reader(self._master, self._from_tool)
        else:
            self._looking = loop.call_later(_LOOK_S, self._look)

    def _nobody(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        loop.remove_writer(self._master)
        self._waiting.clear()

    def _from_tool(self) -> None:
        try:
            data = os.read(self._master, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the tool has closed the port
            self._nobody()
            self._look()
            return
        if self._attentive and _CTRL_C in data:
            data = data.replace(_CTRL_C, b"")
            self._raise_interrupt()
        if self._input >= 0:
            try:
                os.write(self._input, data)
            except (BlockingIOError, BrokenPipeError):
                return  # an overrun of the chip's buffer, or a chip that stops: bytes are lost

    def _raise_interrupt(self) -> None:
        """Interrupt the program; what comes before it can have been raised is one with it."""
        now_s = asyncio.get_running_loop().time()
        if self._interrupt is not None and now_s >= self._next_interrupt_s:
            self._next_interrupt_s = now_s + _INTERRUPT_GAP_S
            self._interrupt()

    def _to_tool(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            del self._waiting[: os.write(self._master, self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._waiting.clear()
        del self._waiting[:-_QUEUE_BYTES]  # a tool that does not read loses the oldest
        if self._waiting:
            loop.add_writer(self._master, self._to_tool)
        else:
            loop.remove_writer(self._master)
