"""kerb monitor: show a board's console, line by line, with the time each came.

With --maintenance the board is reset first and asked to stop in its console window, before its
watchdog starts: then mpremote can reach it, until the next reset. On a port without a reset line
(a pty, some adapters) press the board's reset button when the command says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import serial

from kerb_tools import maintenance
from kerb_tools.parser import new as parser_of

_READ_S = 0.2


def _line(text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"t_s": round(time.time(), 3), "line": text}), flush=True)
    else:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def _show(port: Any, as_json: bool, end: float | None) -> None:
    port.timeout = _READ_S
    while end is None or time.monotonic() < end:
        line = port.readline()
        if line:
            _line(line.decode("utf-8", "replace").rstrip(), as_json)


def _prepare(port: Any, options: argparse.Namespace) -> int:
    """Reset or stop the board if that was asked for; the exit status if it did not work."""
    if options.maintenance:
        if not maintenance.enter(port, lambda text: _line(text, options.json)):
            print(f"kerb monitor: {options.port}: no prompt came", file=sys.stderr)
            return 1
        print("kerb monitor: maintenance; reset the board to start it", file=sys.stderr)
    elif options.reset and not maintenance.reset(port):
        print(f"kerb monitor: {options.port}: cannot reset a board", file=sys.stderr)
    return 0


def main(arguments: list[str]) -> int:
    """Run the command until Ctrl-C; status 2: the port cannot be opened, 1: no maintenance."""
    parser = parser_of(
        "kerb monitor",
        __doc__,
        "kerb monitor --port /dev/ttyUSB0 --reset",
        "kerb monitor --port /dev/ttyUSB0 --maintenance",
    )
    parser.add_argument("--port", required=True, help="such as /dev/ttyUSB0")
    parser.add_argument("--baud", type=int, default=115200, help="[%(default)s]")
    parser.add_argument("--for", dest="for_s", type=float, help="stop after that many seconds")
    parser.add_argument("--reset", action="store_true", help="reset the board first")
    parser.add_argument("--maintenance", action="store_true", help="reset and stop the program")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        with serial.serial_for_url(options.port, options.baud, timeout=_READ_S) as port:
            if status := _prepare(port, options):
                return status
            end = None if options.for_s is None else time.monotonic() + options.for_s
            _show(port, options.json, end)
    except (serial.SerialException, OSError, ValueError) as error:
        print(f"kerb monitor: {options.port}: {error}", file=sys.stderr)
        return 2
    return 0
