"""kerb micropython: find the host's MicroPython, or make one.

Rule: the path alone goes to standard output; what is done to get there goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.progress import Progress

from kerb_tools.interpreter import InterpreterError, find
from kerb_tools.interpreter.routes import ROUTES

_STEPS = 5  # what the longest way round, building, says about itself


def main(arguments: list[str]) -> int:
    """Run the command; exit status 1 when there is no interpreter."""
    parser = argparse.ArgumentParser(prog="kerb micropython", description=__doc__)
    parser.add_argument("--where", action="store_true", help="print its path (the default)")
    parser.add_argument("--route", choices=list(ROUTES), help="make it by this route")
    parser.add_argument("--built", action="store_true", help="only the built variant will do")
    parser.add_argument("--no-provision", action="store_true", help="look, but make nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("looking for MicroPython", total=_STEPS)

        def say(line: str) -> None:
            console.print(line, highlight=False)
            progress.update(task, description=line, advance=1)

        try:
            found = find(
                require_built=options.built,
                provision=not options.no_provision,
                route=options.route,
                say=say,
            )
        except InterpreterError as error:
            print(error, file=sys.stderr)
            return 1
    console.print(found.describe(), highlight=False)
    if options.json:
        print(
            json.dumps(
                {
                    "path": str(found.path),
                    "version": found.version,
                    "route": found.route,
                    "float_bits": found.float_bits,
                    "ticks_period": found.ticks_period,
                }
            )
        )
    else:
        print(found.path)
    return 0
