"""Finds a usable MicroPython: $MICROPYTHON, PATH, the cache; else provisions one.

Rule: each step says what it does; if all fail, one message says how to go on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from kerb_tools.interpreter import cache
from kerb_tools.interpreter.probe import Interpreter, probe
from kerb_tools.interpreter.routes import ROUTES, RouteError, cache_name

Say = Callable[[str], None]

_HOW_TO_GO_ON = """No MicroPython for the host could be found or made. Any one of these helps:
  - a C compiler and make (apt-get install gcc make), and a network: it is then built in a minute
  - apt-get install micropython (Debian 13 or newer)
  - MICROPYTHON=/path/to/micropython, a unix port >= 1.24 with littlefs, _thread and cryptolib
What was tried:
"""


class InterpreterError(Exception):
    """No interpreter; the message says what was tried and how to go on."""


def find(
    *,
    require_built: bool = False,
    provision: bool = True,
    route: str | None = None,
    say: Say = lambda line: None,
) -> Interpreter:
    """Return a usable Interpreter, looking and then making; InterpreterError if there is none.

    require_built: only one with 32-bit floats and the short tick period will do.
    """
    tried: list[str] = []
    if route is None:
        for path, origin in _candidates():
            found = probe(path, origin)
            if isinstance(found, Interpreter) and (found.like_the_port or not require_built):
                return found
            why = found if isinstance(found, str) else "is not the built variant"
            tried.append(f"  - {path} ({origin}): {why}")
            say(f"micropython: {path} ({origin}) {why}")
    names = [route] if route else (["built"] if require_built else list(ROUTES))
    for name in names if provision else []:
        try:
            path = cache.provision(cache_name(name), ROUTES[name], say)
        except RouteError as error:
            tried.append(f"  - route {name}: {error}")
            say(f"micropython: route {name} failed: {error}")
            continue
        found = probe(path, name)
        if isinstance(found, Interpreter):
            return found
        tried.append(f"  - route {name}: {found}")
    raise InterpreterError(_HOW_TO_GO_ON + "\n".join(tried))


def _candidates() -> list[tuple[Path, str]]:
    candidates = []
    if os.environ.get("MICROPYTHON"):
        candidates.append((Path(os.environ["MICROPYTHON"]), "$MICROPYTHON"))
    for name in ROUTES:
        cached = cache.verified(cache_name(name))
        if cached is not None:
            candidates.append((cached, name))
    on_path = shutil.which("micropython")
    if on_path:
        candidates.append((Path(on_path), "PATH"))
    return candidates
