"""One target's run in this process: inputs in, counts and findings out, whichever engine drives.

Rule: a fault is kept once (by its signature), shrunk, and written to a file at once; progress is
one JSON object a line on standard output, the last of them with "done".
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from kerb_tools.fuzz.findings import write
from kerb_tools.fuzz.guard import Finding, Guard, Note, Outcome, peak_rss_mb, shrink
from kerb_tools.fuzz.lines import Lines
from kerb_tools.fuzz.target import Run, Target

_SAY_EVERY_S = 1.0
_FINDINGS_MOST = 50  # a broken target is not to fill the disk


class Progress:
    """How far a worker is, and what it found."""

    def __init__(self, name: str, folder: Path, seconds: float) -> None:
        """folder: build/fuzz, where corpus, notes and findings lie."""
        self.name = name
        self.folder = folder
        self.lines: Lines | None = None
        self.executions = 0
        self.corpus = 0
        self._found: dict[str, Finding] = {}
        self._began = time.monotonic()
        self._ends = self._began + seconds
        self._said = self._began

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._ends

    @property
    def due(self) -> bool:
        """Whether it is time to say something again."""
        return time.monotonic() - self._said >= _SAY_EVERY_S

    @property
    def findings(self) -> list[str]:
        """Signatures of what was found."""
        return sorted(self._found)

    def knows(self, finding: Finding) -> bool:
        """Tell whether this fault is known already, or one too many."""
        return finding.signature in self._found or len(self._found) >= _FINDINGS_MOST

    def keep(self, finding: Finding) -> None:
        """Write a fault down, once."""
        if not self.knows(finding):
            self._found[finding.signature] = finding
            write(self.folder, finding)

    def say(self, *, done: bool = False) -> None:
        """Print how far things are."""
        self._said = time.monotonic()
        print(
            json.dumps(
                {
                    "target": self.name,
                    "executions": self.executions,
                    "seconds": round(self._said - self._began, 2),
                    "corpus": self.corpus,
                    "lines": self.lines.seen if self.lines else None,
                    "lines_of": self.lines.total if self.lines else None,
                    "peak_rss_mb": round(peak_rss_mb(), 1),
                    "findings": self.findings,
                    "done": done,
                }
            ),
            flush=True,
        )


class Session(Progress):
    """What one worker knows of its target."""

    def __init__(self, target: Target, run: Run, folder: Path, seconds: float) -> None:
        super().__init__(target.name, folder, seconds)
        self.target = target
        self.corpus_folder = folder / "corpus" / target.name
        self.corpus_folder.mkdir(parents=True, exist_ok=True)
        self.guard = Guard(target, run, Note(note_path(folder, target.name)))

    def run(self, data: bytes) -> Outcome:
        """Run one input, keep what it found, and say how far things are."""
        self.executions += 1
        outcome = self.guard.run(data)
        if outcome.finding is not None and not self.knows(outcome.finding):
            self.keep(shrink(self.guard, outcome.finding))
        if self.due:
            self.say()
        return outcome

    def save(self, data: bytes) -> None:
        """Keep an input that reached something new, for the next run."""
        self.corpus += 1
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        (self.corpus_folder / name).write_bytes(data)

    def saved(self) -> list[bytes]:
        """Return what earlier runs kept, the smallest first."""
        found = [path.read_bytes() for path in sorted(self.corpus_folder.iterdir())]
        return sorted((one for one in found if len(one) <= self.target.most_bytes), key=len)


def note_path(folder: Path, target: str) -> Path:
    """Return where a worker writes down what it runs."""
    return folder / "running" / target
