"""Asks a MicroPython what it is, so that a run can say what it shows and what it does not.

Rule: facts are measured on the very program that will be used, never read off its name.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUESTIONS = """
import json, sys, time
facts = {"version": ".".join(str(n) for n in sys.implementation.version[:3])}
facts["float_bits"] = 32 if 1.0 + 1e-9 == 1.0 else 64
facts["ticks_period"] = time.ticks_add(0, -1) + 1
for name in ("vfs", "_thread", "cryptolib", "asyncio", "select"):
    try:
        module = __import__(name)
        facts[name] = name != "vfs" or hasattr(module, "VfsLfs2") and hasattr(module, "VfsPosix")
    except ImportError:
        facts[name] = False
print(json.dumps(facts))
"""
_NEEDED = ("vfs", "_thread", "cryptolib", "asyncio", "select")
_PROBE_S = 10
_PORT_FLOAT_BITS = 32
_PORT_TICKS_PERIOD = 1 << 30


@dataclass(frozen=True)
class Interpreter:
    """A usable host MicroPython; `route` says where it came from."""

    path: Path
    version: str
    route: str
    float_bits: int
    ticks_period: int

    @property
    def like_the_port(self) -> bool:
        """Whether floats and ticks are those of the ESP32 port: only the built variant's are."""
        return self.float_bits == _PORT_FLOAT_BITS and self.ticks_period == _PORT_TICKS_PERIOD

    def describe(self) -> str:
        """Return one line: what it is, and what it does not show."""
        line = f"MicroPython {self.version} ({self.route}), {self.float_bits}-bit floats"
        if self.like_the_port:
            return f"{line}, ticks wrap at 2^30 ms as on the ESP32"
        return f"{line}; does NOT show the ESP32's 32-bit floats and early tick wrap"


def probe(path: Path, route: str) -> Interpreter | str:
    """Return the Interpreter, or why this program cannot be used."""
    try:
        answer = subprocess.run(
            [str(path), "-X", "heapsize=128wK", "-c", _QUESTIONS],
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {error}"
    except ValueError:
        return f"gives no answer: {answer.stderr.strip()[-200:] or 'nothing'}"
    missing = [name for name in _NEEDED if not facts[name]]
    if missing:
        return f"lacks {', '.join(missing)}"
    return Interpreter(path, facts["version"], route, facts["float_bits"], facts["ticks_period"])
