"""Writes a campaign's report: a page of Markdown with its figures and plots.

Rule: the page says nothing that the lines do not hold.
"""

from __future__ import annotations

from pathlib import Path

from kerb_tools.bench.result import Result, machine
from kerb_tools.faults import report
from kerb_tools.faults.journal import Line
from kerb_tools.faults.kinds import KINDS
from kerb_tools.faults.outcome import Outcome, quantile
from kerb_tools.faults.plot import plot_counts, plot_samples


def write(work: Path, result: Result, found: dict[str, list[Line]], broken: list[str]) -> Path:
    """Write report.md, report.json and the plots; returns the page's path."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "report.json").write_text(result.as_json() + "\n")
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    lines = [f"# Faults: {result.bench}\n", f"First seed {result.seed}; {facts}.\n"]
    lines += ["## Bars\n", "| figure | value | bar | |", "|---|---|---|---|"]
    for bar in result.bars:
        row = bar.table()
        word = "reached" if bar.ok else "**missed**"
        lines.append(f"| {row['name']} | {row['value']:,} | {row['bar']} | {word} |")
    for name, rows in found.items():
        lines += _kind(work, name, report.total(rows))
    lines += ["", "## What broke\n"] + ([f"- {text}" for text in broken] or ["Nothing."])
    path = work / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _kind(work: Path, name: str, whole: Outcome) -> list[str]:
    lines = [f"\n## {KINDS[name].unit}\n", "| | |", "|---|---|", f"| in all | {whole.count:,} |"]
    lines += [f"| {what} | {number:,} |" for what, number in sorted(whole.counts.items())]
    if whole.counts:
        picture = plot_counts(work / f"{name}-counts.svg", KINDS[name].unit, whole.counts)
        lines += ["", f"![{KINDS[name].unit}]({picture.name})"]
    if whole.samples:
        lines += ["", "| time | n | p50 | p99 | longest |", "|---|---|---|---|---|"]
        for what, values in sorted(whole.samples.items()):
            figures = [f"{quantile(values, share):,.0f}" for share in (0.5, 0.99, 1.0)]
            lines.append(f"| {what} | {len(values)} | {' | '.join(figures)} |")
        picture = plot_samples(work / f"{name}-times.svg", KINDS[name].unit, whole.samples)
        lines += ["", f"![times]({picture.name})"]
    return lines
