"""What a bench returns, and how it is printed.

Rule: with --json the last line on standard output is one object with bench, seed, machine,
figures (name -> value, the unit in the name) and bars; a missed bar is a result, not an error.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bar:
    """A figure that must reach, or stay below, a value."""

    name: str
    value: float
    bar: float
    at_least: bool

    @property
    def ok(self) -> bool:
        """Whether it does."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def table(self) -> dict[str, Any]:
        """Return it as a plain table."""
        sign = ">=" if self.at_least else "<="
        return {"name": self.name, "value": self.value, "bar": f"{sign} {self.bar}", "ok": self.ok}


@dataclass
class Result:
    """Figures and bars of one bench."""

    bench: str
    seed: int
    figures: dict[str, Any] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every bar is reached."""
        return all(bar.ok for bar in self.bars)

    def spread(self, name: str, values: list[float], digits: int = 1) -> float:
        """Note minimum, median and maximum of a figure's runs; returns the median."""
        middle = statistics.median(values)
        for suffix, value in (("min", min(values)), ("", middle), ("max", max(values))):
            key = f"{name}_{suffix}" if suffix else name
            self.figures[key] = round(value, digits)
        return middle

    def as_json(self) -> str:
        """Return the one line for programs."""
        return json.dumps(
            {
                "bench": self.bench,
                "seed": self.seed,
                "machine": machine(),
                "figures": self.figures,
                "bars": [bar.table() for bar in self.bars],
            }
        )

    def show(self, console: Console) -> None:
        """Print the tables for people."""
        table = Table(title=f"kerb bench {self.bench}")
        table.add_column("figure")
        table.add_column("value", justify="right")
        for name, value in self.figures.items():
            table.add_row(name, f"{value:,}" if isinstance(value, (int, float)) else str(value))
        console.print(table)
        for bar in self.bars:
            row = bar.table()
            word = "reached" if bar.ok else "MISSED"
            console.print(f"{word}: {row['name']} = {row['value']} (bar {row['bar']})")


def machine() -> dict[str, Any]:
    """Return what a figure of time depends on."""
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
