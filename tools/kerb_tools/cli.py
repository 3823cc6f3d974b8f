"""kerb: the command line of the technician and the engineer.

Rule: a subcommand lives in a module of its own and is imported only when it is called; a person's
mistake gives a sentence that says the way out, never a traceback.
"""

from __future__ import annotations

import importlib
import sys

from kerb_tools.parser import about

_COMMANDS = {
    "demo": ("kerb_tools.demo.cli", "Run a whole virtual street and check that nothing was lost."),
    "provision": ("kerb_tools.provision", "Make a node's identity, key and gateway entry."),
    "flash": ("kerb_tools.flash", "Put MicroPython and the firmware onto an ESP32."),
    "monitor": ("kerb_tools.monitor", "Watch a board's console, or ask for maintenance."),
    "losses": ("kerb_tools.losses", "Say what became of every reading, from a gateway's file."),
    "fuzz": ("kerb_tools.fuzz.cli", "Give every decoder a stranger's bytes and keep what breaks."),
    "bench": ("kerb_tools.bench.cli", "Measure: wear of the card, speed."),
    "simulate": ("kerb_tools.simulate.cli", "Live years of a gateway in minutes, from a seed."),
    "faults": ("kerb_tools.faults.cli", "Cut, kill, fill and slow down real parts; count losses."),
    "board": ("kerb_tools.board_tree", "Write build/board/: the tree as it lies on a board."),
    "micropython": ("kerb_tools.micropython", "Find or make the host's MicroPython."),
}


def _usage() -> str:
    lines = ["usage: kerb COMMAND [OPTIONS]", "", about(__doc__), "", "commands:"]
    lines += [f"  {name:12} {about}" for name, (_, about) in _COMMANDS.items()]
    lines += ["", "`kerb COMMAND --help` says more."]
    return "\n".join(lines)


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        raise SystemExit(0 if arguments else 2)
    name = arguments[0]
    if name not in _COMMANDS:
        print(f"kerb: no command {name!r}; there are: {', '.join(_COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    try:
        module = importlib.import_module(_COMMANDS[name][0])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kerb_"):
            raise
        print(
            f"kerb {name}: needs {error.name}: pip install 'kerbstone[tools,sim]'", file=sys.stderr
        )
        raise SystemExit(2) from None
    try:
        raise SystemExit(module.main(arguments[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
