"""Disturbances on whole streets: a disk that is full, slow or failing, a slow broker, half-open
connections, a wall clock that jumps, processes that are stopped for a while.

One job is one street with one kind of disturbance, several times at random moments; seeds take
the kinds in turn. A full disk is a small tmpfs of its own where mounting is allowed, else writes
that the preloaded library refuses with ENOSPC. Failing and slow syncs and the wall clock are the
preloaded library's, too: the gateway and SQLite are the installed ones.

Rule: the gateway's database lies in a directory of its own, so that nothing else is disturbed.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

from kerb_tools.faults.disturbances import DISTURBANCES, Around, wall_clock
from kerb_tools.faults.library.build import build, environment
from kerb_tools.faults.library.control import Control
from kerb_tools.faults.outcome import Outcome
from kerb_tools.faults.proxy import Proxy
from kerb_tools.faults.recovery import Fault, measure
from kerb_tools.faults.rig import Needs, Place, Rig, run

_DISK_MB = 6
_BALLAST_MB = 1
_BETWEEN_S = 3.0
_ONE_S = 8.0
_DATABASE = "gateway.sqlite"
_JUMPED_MS = 1800 * 1000


class _Job:
    """One street, its disk, its proxy, its switches."""

    def __init__(self, seed: int, times: int, work: Path, outcome: Outcome) -> None:
        self._seed = seed
        self._times = times
        self._outcome = outcome
        self._disturb = DISTURBANCES[(seed - 1) % len(DISTURBANCES)]
        self._library = build(work)
        self._needs = Needs.found()
        self._faults: list[Fault] = []
        self._mounted = False

    def rig_of(self, run_dir: Path) -> Rig:
        """Prepare the disk and return the street's rig."""
        self._disk = run_dir / "disk"
        self._disk.mkdir()
        self._mounted = self._disturb.__name__ == "disk_full" and _mount(self._disk)
        (run_dir / _DATABASE).symlink_to(self._disk / _DATABASE)
        self._control = Control(run_dir / "control")
        place = Place(run_dir, self._seed, duration_s=self._times * _ONE_S)
        return Rig(
            place.street(self._needs),
            place.duration_s,
            self._seed,
            self._during,
            edit=self._edited,
            environment=environment(self._library, self._disk, control=run_dir / "control"),
            before=self._before,
        )

    async def _before(self, rig: Rig) -> None:
        self._proxy = Proxy(rig.street.broker.port)
        await self._proxy.start()
        rig.closing.append(self._proxy.stop)

    def _edited(self, text: str) -> str:
        text = re.sub(r"\nport = \d+\n", f"\nport = {self._proxy.port}\n", text, count=1)
        place = f'path = "disk/{_DATABASE}"\nballast_mb = {_BALLAST_MB}'
        return text.replace(f'path = "{_DATABASE}"', place, 1)

    async def _during(self, rig: Rig) -> None:
        rng = random.Random(f"disturb/{self._seed}")
        around = Around(
            rig, self._control, self._proxy, self._disk, self._mounted, rng, self._outcome
        )
        for _ in range(self._times):
            await asyncio.sleep(rng.uniform(0.3, _BETWEEN_S))
            fault = await self._disturb(around)
            self._faults.append(fault)
            self._outcome.count += 1
            self._outcome.add(fault.kind)

    def settled(self, run_dir: Path) -> None:
        """Take the database off the small disk, measure, and see that a jump was one."""
        (run_dir / _DATABASE).unlink()
        for path in self._disk.glob(f"{_DATABASE}*"):
            shutil.copy2(path, run_dir / path.name)
        measure(run_dir, self._faults, self._outcome)
        if self._disturb is wall_clock and not _jumped(run_dir):
            self._outcome.fault("the gateway's wall clock never jumped")

    def end(self) -> None:
        """Give the disk back; lazily, as a reader of the database may not have let it go yet."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self._disk)], check=True, timeout=30)


def _mount(path: Path) -> bool:
    """Mount a small tmpfs; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _jumped(run_dir: Path) -> bool:
    """Tell whether the readings' wall times lie further from each other than a run lasts."""
    seen = []
    for line in (run_dir / "subscriber.jsonl").read_text().splitlines():
        payload = json.loads(line).get("payload")
        if isinstance(payload, dict) and isinstance(payload.get("time"), dict):
            seen.append(payload["time"]["wall_ms"])
    return bool(seen) and max(seen) - min(seen) > _JUMPED_MS


def job(seed: int, budget: int, work: Path) -> Outcome:
    """Disturb one street `budget` times."""
    outcome = Outcome()
    street = _Job(seed, budget, work, outcome)
    kept = run(street.rig_of, work, "disturb", outcome, street.settled, street.end)
    if kept is not None:
        outcome.fault(f"kept in {kept.name}")
    return outcome
