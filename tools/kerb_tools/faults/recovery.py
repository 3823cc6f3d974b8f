"""How long it took until readings arrived again, from the subscriber's file.

Rule: from the moment of the fault to the arrival of the next reading that was never seen before,
further faults in between included; what a fault cannot touch does not count for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kerb_check import delivered
from kerb_check.model import Identity

from kerb_tools.faults.outcome import Outcome


@dataclass(frozen=True)
class Fault:
    """A fault from at_s on; back_s: when its cause was gone; nodes: whose readings it stops."""

    kind: str
    at_s: float
    back_s: float
    nodes: frozenset[str] | None = None


def measure(run_dir: Path, faults: list[Fault], outcome: Outcome) -> None:
    """Add a sample in milliseconds for each fault that was followed by a new reading."""
    seen: set[Identity] = set()
    arrivals: list[tuple[float, str]] = []
    for reading in delivered.read(run_dir / "subscriber.jsonl").readings:
        if reading.identity not in seen:
            seen.add(reading.identity)
            arrivals.append((reading.extra["t_s"], reading.identity.node))
    for fault in faults:
        after = (
            at_s
            for at_s, node in arrivals
            if at_s > fault.back_s and (fault.nodes is None or node in fault.nodes)
        )
        arrived_s = next(after, None)
        if arrived_s is None:
            outcome.add("recoveries not seen")
        else:
            outcome.sample(f"{fault.kind}, ms", round((arrived_s - fault.at_s) * 1000))
