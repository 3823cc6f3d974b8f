"""Findings as text: a file each while they are new, and the vectors that the tests replay.

Rule: a vector is "target hex" with a word on what it once did; nothing is promoted twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.fuzz.guard import Finding

# The checkout's own; an installed package has none.
VECTORS = Path(__file__).resolve().parents[3] / "shared" / "tests" / "vectors" / "regressions.txt"


@dataclass(frozen=True)
class Vector:
    """One input that once did what it must not."""

    target: str
    data: bytes


def write(folder: Path, finding: Finding) -> Path:
    """Write a finding where `kerb fuzz --promote` looks for it; returns its file."""
    name = hashlib.sha1(finding.signature.encode(), usedforsecurity=False).hexdigest()[:10]
    path = folder / "findings" / f"{finding.target}-{finding.kind}-{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = [f"# {line}" for line in (finding.signature, *finding.detail.splitlines())]
    path.write_text("\n".join([*about, f"{finding.target} {finding.data.hex()}"]) + "\n")
    return path


def read(path: Path) -> list[Vector]:
    """Return the vectors of a file; ValueError names the line that is none."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        parts = line.split("#", 1)[0].split()
        if not parts:
            continue
        try:
            target, text = (*parts, "")[:2]
            found.append(Vector(target, bytes.fromhex(text)))
        except ValueError:
            raise ValueError(f"{path.name}:{number}: not a target and hex digits") from None
    return found


def promote(folder: Path, vectors: Path) -> list[Vector]:
    """Append the folder's findings to the vectors and remove their files; returns the new ones."""
    known = set(read(vectors)) if vectors.exists() else set()
    added = []
    for path in sorted((folder / "findings").glob("*.txt")):
        signature = path.read_text().splitlines()[0].removeprefix("# ")
        for one in read(path):
            if one not in known:
                known.add(one)
                added.append(one)
                with vectors.open("a") as file:
                    file.write(f"# {signature}\n{one.target} {one.data.hex()}\n")
        path.unlink()
    return added
