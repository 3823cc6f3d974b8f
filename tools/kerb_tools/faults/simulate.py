"""Simulated gateway-years: `kerb simulate`, in a process of its own, for one seed.

Rule: its last line is one JSON object of the benches' form; a bar that it misses is a fault here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kerb_tools.bench.result import Bar
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.outcome import Outcome
from kerb_tools.simulate.coverage import BRANCHES
from kerb_tools.simulate.long import LEAST_TAKEN, LONG_YEARS, READINGS_A_YEAR

BRANCH = "taken: "
_NOT_ADDED_UP = ("readings_per_core_s",)
_YEAR_S = 1800
_HELP_S = 60


def bars(whole: Outcome) -> list[Bar]:
    """Return what many years together must reach; a part of them has no such bars."""
    if whole.count < LONG_YEARS:
        return []
    least = min(whole.counts.get(f"{BRANCH}{name}", 0) for name in BRANCHES)
    readings = round(whole.counts.get("readings", 0) / whole.count)
    return [
        Bar("simulate_branch_taken_least", least, LEAST_TAKEN, at_least=True),
        Bar("simulate_readings_a_gateway_year", readings, READINGS_A_YEAR, at_least=True),
    ]


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
    figures = table["figures"]
    for name, value in figures.items():
        if isinstance(value, int) and name not in _NOT_ADDED_UP:
            outcome.add(name, value)
    for name, taken in figures["branches"].items():
        outcome.add(f"{BRANCH}{name}", taken)
    for bar in table["bars"]:
        if not bar["ok"]:
            why = figures.get("finding") or f"not {bar['bar']}"
            outcome.fault(f"{bar['name']} = {bar['value']}: {why}")
    return outcome
