"""Simulated gateway-years: `kerb simulate`, in a process of its own, for one seed.

Rule: its last line is one JSON object of the benches' form; a bar that it misses is a fault here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.outcome import Outcome

_YEAR_S = 1800
_HELP_S = 60


def is_there() -> bool:
    """Tell whether this tree has the command."""
    command = [sys.executable, "-m", "kerb_tools", "simulate", "--help"]
    done = subprocess.run(command, capture_output=True, timeout=_HELP_S, check=False)
    return done.returncode == 0


def job(seed: int, budget: int, work: Path) -> Outcome:
    """Simulate `budget` gateway-years."""
    command = [sys.executable, "-m", "kerb_tools", "simulate"]
    command += ["--seed", str(seed), "--years", str(budget), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_YEAR_S * budget, check=False
    )
    lines = done.stdout.strip().splitlines()
    if not lines or done.returncode not in (0, 1):
        raise FaultsError(f"kerb simulate --seed {seed}: {done.stderr.strip()[-300:]}")
    table = json.loads(lines[-1])
    outcome = Outcome(count=budget)
    for name, value in table["figures"].items():
        if isinstance(value, int):
            outcome.add(name, value)
    for bar in table["bars"]:
        if not bar["ok"]:
            outcome.fault(f"{bar['name']} = {bar['value']}, not {bar['bar']}")
    return outcome
