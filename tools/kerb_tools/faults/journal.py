"""What a campaign has done so far: a line for each job, so that it goes on where it was ended.

Rule: a line counts only for the tree that it was made from; another tree's lines stay, unread.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.faults.outcome import Outcome

_PARTS = (
    "shared",
    "gateway/kerb_gateway",
    "tools/kerb_tools",
    "tools/kerb_sim",
    "tools/kerb_check",
    "firmware",
)


@dataclass(frozen=True)
class Line:
    """One job that ended."""

    seed: int
    took_s: float
    outcome: Outcome


def tree_digest(top: Path) -> str:
    """Return a digest of all that a campaign's outcome depends on."""
    digest = hashlib.sha256()
    for part in _PARTS:
        for path in sorted((top / part).rglob("*.[pc]*")):
            if path.suffix in (".py", ".c"):
                digest.update(path.relative_to(top).as_posix().encode() + b"\0")
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Journal:
    """The lines of one kind."""

    def __init__(self, folder: Path, kind: str, tree: str) -> None:
        self._path = folder / f"{kind}.jsonl"
        self._tree = tree

    def read(self, first_seed: int) -> list[Line]:
        """Return this tree's lines from a seed on; a last line cut short is not one."""
        if not self._path.exists():
            return []
        lines = {}
        for text in self._path.read_text().splitlines():
            try:
                row = json.loads(text)
            except json.JSONDecodeError:
                continue
            if row["tree"] == self._tree and row["seed"] >= first_seed:
                lines[row["seed"]] = Line(row["seed"], row["took_s"], Outcome(**row["outcome"]))
        return [lines[seed] for seed in sorted(lines)]

    def append(self, line: Line) -> None:
        """Keep a job's outcome."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        row = {"tree": self._tree, "seed": line.seed, "took_s": line.took_s}
        with self._path.open("a") as file:
            file.write(json.dumps(row | {"outcome": line.outcome.table()}) + "\n")
