"""The simulation: a seed is one run, a sound gateway shows nothing, a broken one does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kerb_gateway import backfill, ingest, leases, publisher
from kerb_gateway.store import contacts
from kerb_tools.simulate.chance import Odds
from kerb_tools.simulate.coverage import BRANCHES
from kerb_tools.simulate.street import Street

TOP = Path(__file__).resolve().parents[2]
_DAY = 1 / 365
_DENSE = Odds(
    replays_a_year=200_000,
    forgeries_a_year=10_000,
    crashes_a_year=2000,
    disk_errors_a_year=500,
    full_disks_a_year=500,
    brownouts_a_year=150,
    restores_a_year=0,
    partitions_a_year=3000,
    twin=0.05,
    tilted=0.6,
)


def street(seed: int, days: float = 0.3, gateways: int = 1) -> Street:
    return Street(seed, days * _DAY, 8, _DENSE, gateways=gateways)


def test_a_dense_day_takes_every_branch_and_nothing_is_found() -> None:
    one = Street(6, 2 * _DAY, 8, replace(_DENSE, restores_a_year=600))
    finding = one.run()
    assert finding is None, "\n".join([*one.trace.tail(), str(finding)])
    assert one.houses[0].lives > 10
    assert one.houses[0].judge.restores > 0
    assert one.houses[0].judge.arrivals.arrived_rows > 2000
    missed = [name for name in BRANCHES if name not in one.coverage.taken]
    assert missed == []
    assert set(one.coverage.taken) <= set(BRANCHES)
    times = one.houses[0].judge.times.counts
    assert times["times_ntp"] + times["times_anchored"] + times["times_range"] > 2000


def test_gateways_of_a_group_take_over_from_each_other_and_nothing_is_found() -> None:
    one = street(4, 2, gateways=2)
    finding = one.run()
    assert finding is None, "\n".join([*one.trace.tail(), str(finding)])
    assert one.owners.takeovers > 10
    assert all(house.judge.arrivals.arrived_rows > 1000 for house in one.houses)


def test_the_same_seed_is_the_same_run_whatever_the_hash_seed_is() -> None:
    run = (
        "from kerb_tools.simulate.street import Street; "
        "s = Street(6, 0.0005, 8, gateways=2); s.run(); print(s.trace.digest())"
    )
    paths = os.pathsep.join(str(TOP / name) for name in ("shared", "gateway", "tools"))
    digests = {
        subprocess.run(
            [sys.executable, "-c", run],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_is_another_run() -> None:
    first, second = street(5), street(6)
    first.run()
    second.run()
    assert first.trace.digest() != second.trace.digest()


def _found(seed: int, days: float = 2, gateways: int = 1) -> str:
    finding = street(seed, days, gateways).run()
    return "" if finding is None else finding.kind


def test_an_ack_before_the_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    session = backfill.Backfill._session

    async def hasty(self: Any, node: Any, stream: Any) -> None:
        async def nothing() -> None:
            """The node is told at once."""

        with monkeypatch.context() as patch:
            patch.setattr(self._ingest, "commit", nothing)
            await session(self, node, stream)

    monkeypatch.setattr(backfill.Backfill, "_session", hasty)
    assert _found(3) == "acked before its commit"


def test_a_stored_replay_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "REPLAY", ingest.ACCEPTED)
    assert _found(3) == "stored twice"


def test_a_row_that_ends_without_its_puback_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    acked = publisher.Publisher._acked
    monkeypatch.setattr(publisher.Publisher, "_acked", lambda self, mid, _: acked(self, mid, 0))
    assert _found(3) == "mark too far"


def test_a_range_too_narrow_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "SLEEPING_DRIFT", 0.03)
    assert _found(3) == "outside its range"


def test_others_that_wait_less_than_a_lease_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_WAIT_PCT", 20)
    assert _found(7, 2, gateways=2).startswith("two owners")
