"""The serial port of the board under test: its console, and its files while in maintenance.

Rule: bytes are taken when a word of the bench asks for them; nothing runs beside the test.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from kerb_tools import maintenance
from mpremote.transport_serial import SerialTransport

_PUMP_S = 0.02
# ESP-IDF, "Fatal Errors" and components/esp_rom: what the ROM says at each reset of the chip.
_RESET = re.compile(rb"(task_wdt: Task watchdog got triggered)|rst:0x[0-9a-f]+ \((\w+)\)")


def causes(console: bytes) -> list[str]:
    """Return the cause of each start that a console shows."""
    found, barked = [], False
    for match in _RESET.finditer(console):
        if match[1]:
            barked = True
            continue
        reason = match[2].decode()
        if barked or "WDT" in reason:
            found.append("watchdog")
        elif reason == "DEEPSLEEP_RESET":
            found.append("deep_sleep")
        else:
            found.append("power_on" if reason == "POWERON_RESET" else "hard")
        barked = False
    return found


class BoardPort:
    """An open port; `console` is what the board has said while the application ran."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.files = SerialTransport(path)  # mpremote's words for a board at its prompt
        self.console = b""

    def pump(self) -> None:
        """Take what the board has said by now."""
        time.sleep(_PUMP_S)
        self.console += self.files.serial.read(self.files.serial.in_waiting)

    def reset(self) -> bool:
        """Reset the board by RTS; False: this port has no such line."""
        return maintenance.reset(self.files.serial)

    def interrupt(self) -> None:
        """Stop the application with Ctrl-C, as it is."""
        self.files.serial.write(b"\x03")

    def enter_maintenance(self, reset_board: Callable[[], bool]) -> None:
        """Stop the application before its watchdog runs, and make `files` usable."""
        said: list[str] = []
        self.pump()
        if not maintenance.enter(self.files.serial, said.append, lambda port: reset_board()):
            pytest.fail(f"{self._path}: no prompt came; the board said {said[-5:]}")
        self.files.serial.timeout = None  # what mpremote counts on
        self.files.enter_raw_repl(soft_reset=True)

    def close(self) -> None:
        self.files.close()
