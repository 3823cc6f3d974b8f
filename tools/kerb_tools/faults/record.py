"""Records lives of a store: each ends by itself or is killed right behind one of its changes.

Rule: a life that ends otherwise is an error with its own words, never a short recording.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.faults import oplog
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.library.build import environment
from kerb_tools.faults.oplog import Change

_LIFE_S = 120
_KILLED = 0.75
_LEAST_CHANGES, _MOST_CHANGES = 20, 350


@dataclass(frozen=True)
class Recording:
    """What lay on the disk at first, and every change since."""

    base: dict[str, bytes]
    changes: list[Change]
    kills: int


def record(
    folder: Path,
    library: Path,
    base: dict[str, bytes],
    *,
    seed: int,
    deaths: list[int | None],
    actions: int,
) -> Recording:
    """Let gateways work in `folder`, one after the other, each dying behind so many changes.

    None: it ends by itself, as the last one must: what it had begun only a successor could tell.
    """
    directory, log = folder / "store", folder / "changes"
    directory.mkdir(parents=True)
    for name, content in base.items():
        (directory / name).write_bytes(content)
    kills = 0
    for life, die_after in enumerate(deaths):
        extra = environment(library, directory, log=log, die_after=die_after)
        kills += _live(directory, extra, [seed, life, actions])
    return Recording(base, oplog.read(log), kills)


def deaths_of(seed: int, lives: int) -> list[int | None]:
    """Return where lives end: most are killed, the last one never."""
    rng = random.Random(f"lives/{seed}")
    killed = [rng.random() < _KILLED for _ in range(lives - 1)]
    ends = [rng.randint(_LEAST_CHANGES, _MOST_CHANGES) for _ in killed]
    return [end if one else None for one, end in zip(killed, ends, strict=True)] + [None]


def _live(directory: Path, extra: dict[str, str], numbers: list[int]) -> bool:
    """Run one life; tell whether it was killed."""
    command = [sys.executable, "-m", "kerb_tools.faults.workload", str(directory.resolve())]
    command += map(str, numbers)
    search = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        command,
        env=os.environ | search | extra,
        capture_output=True,
        text=True,
        timeout=_LIFE_S,
        check=False,
    )
    if done.returncode not in (0, -signal.SIGKILL):
        raise FaultsError(f"the recorded gateway failed: {done.stderr.strip()[-600:]}")
    return done.returncode != 0
