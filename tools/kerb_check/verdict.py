"""Reads a run's four sources, compares them, and says whether the contract held.

Rule: a source that cannot be read whole is itself a failure; there is no verdict on half a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerb_check import (
    commands,
    database,
    delivered,
    figures,
    flash,
    lampfaults,
    numbers,
    readings,
    times,
    world,
)
from kerb_check.model import Finding, SourceError


@dataclass
class Verdict:
    """figures: flat name -> value; `good` only if nothing is unaccounted or unconfirmed."""

    figures: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    sets: readings.Sets | None = None
    comparison: readings.Comparison | None = None

    @property
    def good(self) -> bool:
        """Whether every reading is accounted for and every command confirmed."""
        if self.broken:
            return False
        unconfirmed = self.figures["commands_sent"] - self.figures["commands_confirmed"]
        return not self.findings and self.figures["unaccounted"] == 0 and unconfirmed == 0


def judge(run: Path) -> Verdict:
    """Return the Verdict over a run directory (its layout is in docs/testing.md)."""
    verdict = Verdict()
    try:
        truth = world.read(run / "world.jsonl")
        images = {node: flash.read_all(run / "nodes" / node, node) for node in truth.roles}
        sets = readings.Sets(
            truth,
            images,
            database.read_all(run),
            delivered.read(run / "subscriber.jsonl"),
        )
        sent = commands.read(run / "commands.jsonl")
    except SourceError as error:
        verdict.broken.append(str(error))
        verdict.figures = {"unaccounted": None, "commands_sent": 0, "commands_confirmed": 0}
        return verdict
    verdict.sets = sets
    verdict.comparison = readings.compare(sets)
    outcome = commands.check(sent, sets.delivered.results, images)
    faults = lampfaults.check(truth, verdict.comparison.unique)
    timed = times.check(verdict.comparison)
    verdict.findings = verdict.comparison.findings + outcome.findings + faults.findings
    verdict.findings += timed.findings + numbers.check(sets.delivered)
    verdict.figures = figures.collect(sets, verdict.comparison, outcome, faults, timed)
    return verdict
