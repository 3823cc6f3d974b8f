"""What one job of a campaign has found, in the form in which it is kept and added up.

Rule: counts add up, samples are kept one by one, and what broke is said in words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 20


@dataclass
class Outcome:
    """count: what the budget counts (states, kills, cuts); broken: of them, or beside them."""

    count: int = 0
    broken: int = 0
    details: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        self.counts[name] = self.counts.get(name, 0) + number

    def sample(self, name: str, value: float) -> None:
        """Keep one measurement."""
        self.samples.setdefault(name, []).append(value)

    def fault(self, text: str) -> None:
        """Note something that must not be; of many, the first ones in words."""
        self.broken += 1
        if len(self.details) < SHOWN:
            self.details.append(text)

    def take(self, other: Outcome) -> None:
        """Add another job's outcome."""
        self.count += other.count
        self.broken += other.broken
        self.details = (self.details + other.details)[:SHOWN]
        for name, number in other.counts.items():
            self.add(name, number)
        for name, values in other.samples.items():
            self.samples.setdefault(name, []).extend(values)

    def table(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    index = max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)
    return ordered[index]
