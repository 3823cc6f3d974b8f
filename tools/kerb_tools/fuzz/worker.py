"""One target in a process of its own: `python -m kerb_tools.fuzz.worker TARGET ...`.

Rule: nothing of ours is imported before the engine has had its chance to instrument it; memory is
bounded before the first input.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
from pathlib import Path

from kerb_tools.fuzz import atheris_engine

# What takes the bytes first, where that is a library, is as interesting as what comes behind it.
_TRACED = ("kerb_wire", "kerb_gateway", "paho.mqtt", "pymodbus.framer", "pymodbus.pdu")


def main() -> int:
    """Run a target; its progress goes to standard output as JSON lines."""
    parser = argparse.ArgumentParser("worker")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--engine", choices=("own", "atheris"), required=True)
    parser.add_argument("--dir", type=Path, required=True)
    chosen = parser.parse_args()
    instrument = (
        atheris_engine.instrumented(_TRACED)
        if chosen.engine == "atheris"
        else contextlib.nullcontext()
    )
    with instrument:
        registry = importlib.import_module("kerb_tools.fuzz.registry")
        run = registry.TARGETS[chosen.target].make()
    guard = importlib.import_module("kerb_tools.fuzz.guard")
    sessions = importlib.import_module("kerb_tools.fuzz.session")
    guard.limit_memory()
    session = sessions.Session(registry.TARGETS[chosen.target], run, chosen.dir, chosen.seconds)
    if chosen.engine == "atheris":
        atheris_engine.run(session, chosen.seed)
    else:
        importlib.import_module("kerb_tools.fuzz.own_engine").run(session, chosen.seed)
        session.say(done=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
