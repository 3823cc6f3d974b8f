"""A whole run: each target in a worker of its own, one after the other, within a span of time.

Rule: one worker at a time; a worker that dies or falls silent is itself a finding, with the input
that it had written down last; the result is computed from what the workers said.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerb_tools.fuzz import atheris_engine, differential
from kerb_tools.fuzz.findings import write
from kerb_tools.fuzz.guard import Finding, Note
from kerb_tools.fuzz.session import note_path

_SILENT_S = 60.0  # a worker says something every second, unless an input holds it up
_BOTH_SHARE = 0.2
_MEMORY = "/dev/shm"
PEAK_RSS_MB = 512.0

Say = Callable[[dict[str, Any]], None]


@dataclass
class Part:
    """What came of one target."""

    name: str
    engine: str
    said: dict[str, Any] = field(default_factory=dict)
    died: str = ""

    @property
    def executions(self) -> int:
        """Inputs run."""
        return int(self.said.get("executions", 0))

    @property
    def findings(self) -> list[str]:
        """Signatures of what was found."""
        return [*self.said.get("findings", []), *([self.died] if self.died else [])]

    @property
    def per_s(self) -> float:
        """Inputs a second."""
        return float(self.executions / max(0.01, self.said.get("seconds", 0.01)))


@dataclass
class Campaign:
    """What to run, and where its files lie."""

    folder: Path
    names: Sequence[str]
    seconds: float
    seed: int
    engine: str
    micropython: Path | None
    say: Say = lambda said: None
    _environment: dict[str, str] = field(default_factory=dict)

    def run(self) -> list[Part]:
        """Run everything; returns a part for each target, and one for the comparison."""
        both = self.micropython is not None
        each_s = self.seconds * (1 - _BOTH_SHARE * both) / len(self.names)
        parts = []
        # In memory where the machine offers that: a fuzzed store is not worth a card's wear.
        where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="kerb-fuzz-", dir=where) as scratch:
            self._environment = os.environ | {"TMPDIR": scratch}
            parts += [self._target(name, each_s) for name in self.names]
            if self.micropython is not None:
                parts.append(self._both(self.seconds * _BOTH_SHARE, self.micropython))
        return parts

    def _common(self, seconds: float) -> list[str]:
        return [
            "--seconds", f"{seconds:.2f}", "--seed", str(self.seed), "--dir", str(self.folder),
        ]  # fmt: skip

    def _target(self, name: str, seconds: float) -> Part:
        part = Part(name, self.engine)
        command = ["kerb_tools.fuzz.worker", name, "--engine", self.engine]
        self._watch(part, command + self._common(seconds))
        return part

    def _both(self, seconds: float, micropython: Path) -> Part:
        part = Part(differential.NAME, "own")
        command = ["kerb_tools.fuzz.differential", "--micropython", str(micropython)]
        self._watch(part, command + self._common(seconds))
        return part

    def _watch(self, part: Part, command: list[str]) -> None:
        """Run a worker and hear what it says until it ends."""
        log = self.folder / "logs" / f"{part.name.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
            )
            silent = self._listen(part, process)
            process.kill()
            process.wait()
        if not part.said.get("done"):
            self._dead(part, "silent" if silent else f"exit status {process.returncode}", log)

    def _listen(self, part: Part, process: subprocess.Popen[bytes]) -> bool:
        """Take a worker's lines until it has said all; tell whether it fell silent instead."""
        assert process.stdout is not None
        pipe = process.stdout
        held = b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            heard = time.monotonic()
            while time.monotonic() - heard < _SILENT_S:
                if not selector.select(1.0):
                    continue
                heard = time.monotonic()
                read = os.read(pipe.fileno(), 65536)
                if not read:
                    process.wait(_SILENT_S)
                    return False
                *lines, held = (held + read).split(b"\n")
                for line in lines:
                    if line.startswith(b"{"):  # an engine may have its own last words
                        part.said = json.loads(line)
                        self.say(part.said)
        return True

    def _dead(self, part: Part, how: str, log: Path) -> None:
        note = note_path(self.folder, part.name)
        data = Note.read(note) if note.exists() else b""
        tail = log.read_text(errors="replace")[-2000:]
        finding = Finding(part.name, "death", how, "", data, tail)
        write(self.folder, finding)
        part.died = finding.signature


def result_of(parts: Sequence[Part], seed: int) -> dict[str, Any]:
    """Return the figures and bars of a run, in the form of the benches."""
    executions = sum(part.executions for part in parts)
    seconds = sum(part.said.get("seconds", 0.0) for part in parts)
    signatures = [one for part in parts for one in part.findings]
    peak_mb = max((part.said.get("peak_rss_mb", 0.0) for part in parts), default=0.0)
    counts = {
        "crashes": sum(1 for one in signatures if " hang " not in one and " memory " not in one),
        "hangs": sum(1 for one in signatures if " hang " in one),
        "memory": sum(1 for one in signatures if " memory " in one),
    }
    bars = [{"name": name, "value": n, "bar": "<= 0", "ok": n == 0} for name, n in counts.items()]
    bars.append(
        {
            "name": "peak_rss_mb",
            "value": peak_mb,
            "bar": f"<= {PEAK_RSS_MB:.0f}",
            "ok": peak_mb <= PEAK_RSS_MB,
        }
    )
    both = next((part for part in parts if part.name == differential.NAME), None)
    return {
        "bench": "fuzz",
        "seed": seed,
        "figures": {
            "targets": len([part for part in parts if part is not both]),
            "executions": executions,
            "executions_s": round(executions / max(0.01, seconds), 1),
            "compared_on_both_interpreters": both.executions if both else 0,
            "seconds": round(seconds, 1),
            "peak_rss_mb": peak_mb,
            **counts,
        },
        "targets": {
            part.name: {
                "engine": part.engine,
                "executions": part.executions,
                "executions_s": round(part.per_s, 1),
                "corpus": part.said.get("corpus", 0),
                "lines": part.said.get("lines"),
                "lines_of": part.said.get("lines_of"),
                "peak_rss_mb": part.said.get("peak_rss_mb"),
                "findings": part.findings,
            }
            for part in parts
        },
        "bars": bars,
    }


def default_engine() -> str:
    """Return atheris where it is installed, else our own."""
    return "atheris" if atheris_engine.is_here() else "own"
