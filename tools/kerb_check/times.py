"""Whether each reading was made when its message says: the world's clock against t_min .. t_max.

Rule: the world writes CLOCK_BOOTTIME of the machine that the run was on, which is the axis of the
messages too; a range that the truth lies outside of is a finding, however narrow the miss. A
message that names another boot of that machine cannot be compared and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kerb_check.model import Finding
from kerb_check.readings import Comparison
from kerb_check.world import Burst


@dataclass
class Times:
    """What the comparison found: errors of the estimates, widths of the ranges, misses."""

    errors_ms: list[float] = field(default_factory=list)
    ranges_ms: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def check(comparison: Comparison) -> Times:
    """Compare every delivered reading that was measured by a burst with that burst."""
    result = Times()
    for alignment in comparison.alignments.values():
        for burst, record in alignment.pairs:
            delivered = comparison.unique.get(record.identity)
            time = None if delivered is None else delivered.content.get("time")
            if isinstance(time, dict) and "t_boot_id" not in time:  # else another boot's clock
                _judge(str(record.identity), burst, time, result)
    return result


def _judge(subject: str, burst: Burst, time: dict[str, Any], result: Times) -> None:
    truth_ms = burst.t_s * 1000
    low, guess, high = (time.get(name) for name in ("t_min_ms", "t_ms", "t_max_ms"))
    # A millisecond is what cutting to whole ones takes.
    before = low is not None and truth_ms < low - 1
    after = high is not None and truth_ms > high + 1
    if before or after:
        result.findings.append(
            Finding("outside its range", subject, f"{truth_ms:.0f} ms not in {low} to {high}")
        )
    if guess is not None:
        result.errors_ms.append(abs(guess - truth_ms))
    if low is not None and high is not None:
        result.ranges_ms.append(high - low)
