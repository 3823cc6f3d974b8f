"""Brings a board to its prompt, whatever it does now, so that mpremote finds nothing in its way.

Rule: the board is reset first, because an application that is interrupted later leaves a watchdog
behind that nothing feeds. The key is Ctrl-B: the console window takes it as any other key, a
friendly prompt greets again, a raw one that was left behind becomes friendly.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

RESET_BY_HAND_S = 30.0
_RESET_S = 0.1
_BOOT_S = 8.0  # the bootloader, MicroPython and the window, with some to spare
_KEY_GAP_S = 0.1
_QUIET_S = 0.3
_CTRL_B = b"\x02"
_PROMPT = b">>> "
_NO_SUCH_LINE = (errno.ENOTTY, errno.EINVAL)

Show = Callable[[str], None]
Reset = Callable[[Any], bool]


def reset(port: Any) -> bool:
    """Pull EN low through RTS, as the usual auto-reset circuit has it; False: no such line."""
    try:
        port.dtr = False
        port.rts = True
        time.sleep(_RESET_S)
        port.reset_input_buffer()  # a prompt from before the reset is none
        port.rts = False
    except OSError as error:
        if error.errno in _NO_SUCH_LINE:
            return False
        raise
    return True


def enter(port: Any, show: Show, reset_board: Reset = reset) -> bool:
    """Reset the board and knock until its prompt comes; False: it did not.

    port: an open pyserial port; show: gets each line that the board says meanwhile. On a port
    without a reset line it is the person at the board who is asked to reset it.
    """
    wait_s = _BOOT_S
    if not reset_board(port):
        show("this port cannot reset the board: press its reset button now")
        wait_s = RESET_BY_HAND_S
    lines = _Lines(show)
    end_s = time.monotonic() + wait_s
    while time.monotonic() < end_s:
        port.write(_CTRL_B)
        lines.add(_heard(port, _KEY_GAP_S))
        if lines.rest.endswith(_PROMPT):
            while heard := _heard(port, _QUIET_S):  # what earlier keys still bring
                lines.add(heard)
            return True
    return False


def _heard(port: Any, duration_s: float) -> bytes:
    """Return what comes within duration_s."""
    port.timeout = duration_s
    first: bytes = port.read(1)
    return first + port.read(port.in_waiting) if first else b""


class _Lines:
    """Bytes in, lines out; `rest` is the line that has not ended."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self.rest = b""

    def add(self, data: bytes) -> None:
        *whole, self.rest = (self.rest + data).split(b"\n")
        for line in whole:
            self._show(line.decode("utf-8", "replace").rstrip())
