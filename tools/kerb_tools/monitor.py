"""kerb monitor: show a board's console, line by line, with the time each came.

With --maintenance the board is reset first and asked to stop in its console window, before its
watchdog starts: then mpremote can reach it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import serial

_WINDOW_S = 4.0
_RESET_S = 0.1


def _reset(port: Any) -> None:
    """Pull EN low through RTS, as the usual auto-reset circuit has it."""
    port.dtr = False
    port.rts = True
    time.sleep(_RESET_S)
    port.rts = False


def _ask(port: Any) -> None:
    """Send a key again and again while the window is open."""
    end = time.monotonic() + _WINDOW_S
    while time.monotonic() < end:
        port.write(b"m")
        line = port.readline()
        if line:
            print(line.decode("utf-8", "replace").rstrip())
        if b"maintenance;" in line:
            return


def _show(port: Any, as_json: bool, end: float | None) -> None:
    while end is None or time.monotonic() < end:
        line = port.readline()
        if not line:
            continue
        text = line.decode("utf-8", "replace").rstrip()
        if as_json:
            print(json.dumps({"t_s": round(time.time(), 3), "line": text}), flush=True)
        else:
            print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Run the command until Ctrl-C; exit status 2 when the port cannot be opened."""
    parser = argparse.ArgumentParser(prog="kerb monitor", description=__doc__)
    parser.add_argument("--port", required=True, help="such as /dev/ttyUSB0")
    parser.add_argument("--baud", type=int, default=115200, help="[%(default)s]")
    parser.add_argument("--for", dest="for_s", type=float, help="stop after that many seconds")
    parser.add_argument("--reset", action="store_true", help="reset the board first")
    parser.add_argument("--maintenance", action="store_true", help="reset and stop the program")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        with serial.serial_for_url(options.port, options.baud, timeout=0.2) as port:
            if options.reset or options.maintenance:
                _reset(port)
            if options.maintenance:
                _ask(port)
            end = None if options.for_s is None else time.monotonic() + options.for_s
            _show(port, options.json, end)
    except (serial.SerialException, OSError, ValueError) as error:
        print(f"kerb monitor: {options.port}: {error}", file=sys.stderr)
        return 2
    return 0
