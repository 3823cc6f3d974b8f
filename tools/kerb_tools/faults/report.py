"""Adds up a campaign's lines and says them in the benches' form.

Rule: figures come from the lines alone, so a report can be made anew at any time.
"""

from __future__ import annotations

import re

from kerb_tools.bench.result import Bar, Result
from kerb_tools.faults import simulate
from kerb_tools.faults.journal import Line
from kerb_tools.faults.kinds import KINDS
from kerb_tools.faults.outcome import Outcome, quantile

# What a street's checker counts and the contract forbids.
NEVER = ("unaccounted", "replays accepted")


def total(lines: list[Line]) -> Outcome:
    """Return all lines' outcomes as one."""
    whole = Outcome()
    for line in lines:
        whole.take(line.outcome)
    return whole


def result(bench: str, seed: int, found: dict[str, list[Line]], budgets: dict[str, int]) -> Result:
    """Return figures and bars of the kinds that ran."""
    made = Result(bench, seed)
    for name, lines in found.items():
        whole = total(lines)
        made.figures[name] = whole.count
        made.figures[f"{name}_broken"] = whole.broken
        for what, number in sorted(whole.counts.items()):
            made.figures[f"{name}_{_word(what)}"] = number
        for what, values in sorted(whole.samples.items()):
            for share, suffix in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
                made.figures[f"{name}_{_word(what)}_{suffix}"] = round(quantile(values, share), 1)
        made.figures[f"{name}_job_seconds"] = round(sum(line.took_s for line in lines))
        made.bars.append(Bar(f"{name}_broken", whole.broken, 0, at_least=False))
        made.bars += [
            Bar(f"{name}_{_word(what)}", whole.counts[what], 0, at_least=False)
            for what in NEVER
            if what in whole.counts
        ]
        made.bars.append(Bar(name, whole.count, budgets[name], at_least=True))
        if name == "simulate":
            made.bars += simulate.bars(whole)
    return made


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def details(found: dict[str, list[Line]]) -> list[str]:
    """Return what broke, in words, with the seed that shows it again."""
    return [
        f"{KINDS[name].name}, seed {line.seed}: {text}"
        for name, lines in found.items()
        for line in lines
        for text in line.outcome.details
    ]
