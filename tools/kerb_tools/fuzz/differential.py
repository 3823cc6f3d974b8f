"""The same inputs to both interpreters: `python -m kerb_tools.fuzz.differential ...`.

Rule: what the host's CPython and MicroPython say to an input must be the same text, to the byte.
One MicroPython process takes a batch, with a heap as small as a virtual board's.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerb_wire import errors

from kerb_tools.fuzz.both import wire_targets
from kerb_tools.fuzz.findings import Vector
from kerb_tools.fuzz.guard import Finding
from kerb_tools.fuzz.mutate import Mutator
from kerb_tools.fuzz.node import FIRMWARE
from kerb_tools.fuzz.registry import TARGETS
from kerb_tools.fuzz.session import Progress

NAME = "both interpreters"
_BATCH = 1500
_BATCH_S = 60.0
_HEAP = "128wK"  # what a virtual board has
_BOTH = Path(__file__).parent / "both"
_WIRE = Path(errors.__file__).parents[1]


@dataclass(frozen=True)
class Micro:
    """A MicroPython for the host."""

    program: Path

    def answers(self, vectors: list[Vector]) -> list[str]:
        """Return what it says to each vector; fewer answers when one of them ended it."""
        text = "".join(f"{one.target} {one.data.hex()}\n" for one in vectors)
        process = subprocess.Popen(
            [str(self.program), "-X", f"heapsize={_HEAP}", str(_BOTH / "wire_answers.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"MICROPYPATH": f"{_BOTH}:{_WIRE}:{FIRMWARE}:.frozen"},
        )
        try:
            said, _ = process.communicate(text, timeout=_BATCH_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        return said.splitlines()


def differences(micro: Micro, vectors: list[Vector]) -> Iterator[Finding]:
    """Yield what the interpreters do not agree on, and what ends the small one."""
    at = 0
    while at < len(vectors):
        answers = micro.answers(vectors[at:])
        for one, said in zip(vectors[at:], answers, strict=False):
            mine = wire_targets.say(TARGETS[one.target].make(), one.data)
            if said != mine:
                words = f"{_words(mine)} / {_words(said)}"
                yield Finding(one.target, "difference", words, "", one.data, f"{mine}\n{said}")
        at += len(answers)
        if at < len(vectors):
            one = vectors[at]
            yield Finding(one.target, "death", "MicroPython ended, or hung", "", one.data)
            at += 1


def _words(said: str) -> str:
    """Return the verdict, and the reason or type behind it, without values."""
    return " ".join(said.split("(")[0].split()[:2])


def _inputs(folder: Path, seed: int) -> Iterator[Vector]:
    """Yield seeds, then what the engines kept, then changes of both, for ever."""
    rng = random.Random(f"{seed} {NAME}")
    pools: dict[str, list[bytes]] = {}
    mutators = {}
    for name, target in TARGETS.items():
        if target.both:
            kept = folder / "corpus" / name
            saved = sorted(kept.iterdir()) if kept.is_dir() else []
            pools[name] = target.seeds() + [path.read_bytes() for path in saved]
            mutators[name] = Mutator(rng, repair=target.repair, most_bytes=target.most_bytes)
            yield from (Vector(name, data) for data in pools[name])
    names = sorted(pools)
    while True:
        name = rng.choice(names)
        changed = mutators[name].change(rng.choice(pools[name]), rng.choice(pools[name]))
        yield Vector(name, changed[: TARGETS[name].most_bytes])


def run(micro: Micro, folder: Path, seconds: float, seed: int) -> None:
    """Compare until the time is up."""
    progress = Progress(NAME, folder, seconds)
    inputs = _inputs(folder, seed)
    while not progress.over:
        batch = [next(inputs) for _ in range(_BATCH)]
        for finding in differences(micro, batch):
            progress.keep(finding)
        progress.executions += len(batch)
        progress.say()
    progress.say(done=True)


def main() -> int:
    """Compare for a while; progress goes to standard output as JSON lines."""
    parser = argparse.ArgumentParser("differential")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--micropython", type=Path, required=True)
    chosen = parser.parse_args()
    run(Micro(chosen.micropython), chosen.dir, chosen.seconds, chosen.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
