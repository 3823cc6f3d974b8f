"""Power-cut states of the store: records lives of it, cuts the power everywhere, opens each state.

One job is one seed: three lives from an empty disk, then two more from one of the states found,
as after a power cut. Every prefix of the recording is tried; of the subsets of what was not synced
as many as the job's share of the budget allows, drawn from the seed. The same content is opened
once and held against every promise of the moments at which it can arise.

Rule: a state counts once, by its content; it is opened by the real store.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.faults import scratch, scripted
from kerb_tools.faults.cuts import Cut, cuts
from kerb_tools.faults.disk import Disk
from kerb_tools.faults.inline import InlineLoop
from kerb_tools.faults.judge import Judge, Sight, broken
from kerb_tools.faults.library.build import build
from kerb_tools.faults.marks import Promise, follow, marks_in, next_fingerprints
from kerb_tools.faults.outcome import Outcome
from kerb_tools.faults.record import Recording, deaths_of, record
from kerb_tools.faults.workload import DATABASE, NODES

_FEWEST_ACTIONS, _STATES_AN_ACTION = 4, 50
_PAGE_BYTES = 4096
_GO_ON_EVERY = 10


@dataclass(frozen=True)
class _Moment:
    """A state, what was promised when it could arise, and what was just beginning."""

    number: int
    cut: Cut
    files: dict[str, bytes]
    promise: Promise
    coming: str


def moments(
    recording: Recording, share: float, seed: int, *, damaged: bool = False
) -> Iterator[_Moment]:
    """Yield the states of a recording: every prefix, of the others this share."""
    disk = Disk.holding(recording.base)
    rng = random.Random(f"cuts/{seed}")
    coming = next_fingerprints(recording.changes)
    promise = Promise(damaged=damaged)
    for number, change in enumerate(recording.changes):
        marks = marks_in(change)
        for mark in marks or []:
            promise = follow(promise, mark)
        if marks is None:
            disk.take(change)
        for index, cut in enumerate(cuts(disk, rng)):
            # A mark changes what must hold, not what is there: prefix and nothing-unsynced again.
            if index > 1 and (marks is not None or rng.random() >= share):
                continue
            yield _Moment(number, cut, disk.after(cut.arrived), promise, coming[number])


def _digest(files: dict[str, bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=12)
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.digest()


def _share(recording: Recording, budget: int, seed: int) -> float:
    """Return which share of the subsets fits into the budget beside all prefixes."""
    disk = Disk.holding(recording.base)
    rng = random.Random(f"cuts/{seed}")
    prefixes = others = 0
    for change in recording.changes:
        if marks_in(change) is None:
            disk.take(change)
            prefixes += 1
            others += sum(1 for _ in cuts(disk, rng)) - 1
    return min(1.0, max(0.0, budget - prefixes) / max(1, others))


class _Opener:
    """Opens each content once."""

    def __init__(self, judge: Judge, found: Outcome) -> None:
        self._judge = judge
        self._found = found
        self._sights: dict[bytes, Sight] = {}

    async def take(self, moment: _Moment) -> None:
        """Open a state if it is new, and hold it against the promise of its moment."""
        key = _digest(moment.files)
        if key not in self._sights:
            go_on = len(self._sights) % _GO_ON_EVERY == 0
            self._sights[key] = await self._judge.look(moment.files, go_on=go_on)
            self._found.count += 1
            self._found.add(f"states: {moment.cut.how}")
        faults = broken(self._sights[key], moment.promise, moment.coming)
        if faults:
            where = f"change {moment.number}, {moment.cut.how}"
            self._found.fault(f"{where}: {'; '.join(faults[:3])}")


@dataclass(frozen=True)
class _Round:
    """Lives on one disk: how many, and which part of the budget their states get."""

    lives: int
    part: float
    damaged: bool = False


def _rounds(seed: int) -> list[_Round]:
    """Return a job's rounds; in every fourth the second one finds its file damaged."""
    return [_Round(3, 0.6), _Round(2, 0.4, damaged=seed % 4 == 0)]


def _damage(files: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    """Return the files with a page of the database spoilt, and the note that says so."""
    content = bytearray(files[DATABASE])
    page = rng.randrange(1, max(2, len(content) // _PAGE_BYTES)) * _PAGE_BYTES
    content[page : page + _PAGE_BYTES] = rng.randbytes(_PAGE_BYTES)
    return files | {DATABASE: bytes(content), f"{DATABASE}.suspect": b""}


async def _job(seed: int, budget: int, work: Path) -> Outcome:
    library = build(work)
    found = Outcome()
    rng = random.Random(f"base/{seed}")
    with scratch.folder("kerb-cuts-", scratch.memory()) as folder:
        base: dict[str, bytes] = {}
        for number, one in enumerate(_rounds(seed)):
            if one.damaged:
                base = _damage(base, rng)
            recording = record(
                folder / f"round{number}",
                library,
                base,
                seed=seed,
                deaths=deaths_of(seed + number, one.lives),
                actions=max(_FEWEST_ACTIONS, budget // _STATES_AN_ACTION),
            )
            found.add("lives", one.lives)
            found.add("lives killed", recording.kills)
            base = await _cut_everywhere(
                recording, folder / "state", found, seed, round(budget * one.part), one.damaged
            )
            shutil.rmtree(folder / f"round{number}")
    return found


async def _cut_everywhere(
    recording: Recording, scratch: Path, found: Outcome, seed: int, budget: int, damaged: bool
) -> dict[str, bytes]:
    """Open the states of a recording; returns one of them, to go on from."""
    judge = Judge(
        scratch,
        scripted.nodes(NODES, seed),
        seed,
        recording.base.get(DATABASE) if damaged else None,
    )
    opener = _Opener(judge, found)
    share = _share(recording, budget, seed)
    rng = random.Random(f"chosen/{seed}")
    chosen: dict[str, bytes] = {}
    eligible = 0
    for moment in moments(recording, share, seed, damaged=damaged):
        await opener.take(moment)
        found.add("moments")
        if moment.promise.opened:
            eligible += 1
            if rng.random() * eligible < 1:
                chosen = moment.files
    found.add("changes", len(recording.changes))
    return chosen


def job(seed: int, budget: int, work: Path) -> Outcome:
    """Run one seed's job."""
    with asyncio.Runner(loop_factory=InlineLoop) as runner:
        return runner.run(_job(seed, budget, work))
