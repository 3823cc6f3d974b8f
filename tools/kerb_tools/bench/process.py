"""What a process has cost so far, as the kernel counts it (proc(5)).

Rule: figures are differences between two looks at the same processes; their children count too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """CPU seconds, bytes handed to write calls, and the highest resident size (kB) so far."""

    cpu_s: float
    written_bytes: int
    peak_kb: int

    def since(self, before: Cost) -> Cost:
        """Return what was added since `before`; the resident size stays the highest."""
        return Cost(
            self.cpu_s - before.cpu_s, self.written_bytes - before.written_bytes, self.peak_kb
        )


def of(pids: Iterable[int]) -> Cost:
    """Return the sum over processes, and the sum of their highest resident sizes."""
    costs = [_one(Path("/proc") / str(pid)) for pid in pids]
    return Cost(
        sum(one.cpu_s for one in costs),
        sum(one.written_bytes for one in costs),
        sum(one.peak_kb for one in costs),
    )


def _one(place: Path) -> Cost:
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    written = _value(place / "io", "wchar")
    return Cost(cpu_s, written, _value(place / "status", "VmHWM"))


def _value(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0
