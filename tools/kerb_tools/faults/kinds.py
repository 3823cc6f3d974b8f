"""The kinds of jobs that a campaign has, and how much of each it does.

Rule: a job is a function of seed and budget in a module of its own, imported where it runs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.faults.outcome import Outcome


@dataclass(frozen=True)
class Kind:
    """portion: what one job does of `unit`; workers: how many jobs run side by side."""

    name: str
    module: str
    unit: str
    portion: int
    workers: int


KINDS = {
    kind.name: kind
    for kind in (
        Kind("states", "kerb_tools.faults.states", "power-cut states of the store", 1500, 2),
        Kind("kills", "kerb_tools.faults.kills", "SIGKILLs on whole streets", 40, 3),
        Kind("disturb", "kerb_tools.faults.disturb", "disturbances on whole streets", 3, 3),
        Kind("flash", "kerb_tools.faults.flash_day", "wakes, cut at every flash write", 96, 2),
        Kind("simulate", "kerb_tools.faults.simulate", "simulated gateway-years", 1, 2),
    )
}

# What `make faults` and `make campaign` do, in units; the budgeted part is for `make test`.
PLANS: dict[str, dict[str, int]] = {
    "faults": {"states": 150_000, "kills": 1_500, "disturb": 54, "flash": 96, "simulate": 15},
    "campaign": {"states": 500_000, "kills": 5_000, "disturb": 270, "flash": 480, "simulate": 100},
}


def run_job(name: str, seed: int, budget: int, work: str) -> Outcome:
    """Run one job of a kind; in a process of its own where several run."""
    module = importlib.import_module(KINDS[name].module)
    outcome: Outcome = module.job(seed, budget, Path(work))
    return outcome
