"""Streets that two gateways hear; one dies or is cut off: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

from kerb_check.database import read_all
from kerb_check.delivered import read as read_delivered
from kerb_sim.street import Street
from kerb_tools.demo.run import Demo
from streets import assert_accounted, calm, run_street

_PATIENCE_S = 20.0
_SCALE = 600.0  # a wake every 1.5 s, a lease of 3 s


def rows_of(street: Street, gateway: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in street.log_of(gateway).read_text().splitlines()]


def owned(street: Street, gateway: str) -> dict[str, object]:
    """Return {node: generation} of what a gateway owns by its own log."""
    nodes: dict[str, object] = {}
    for row in rows_of(street, gateway):
        if row["event"] == "node owned":
            nodes[str(row["node"])] = row["generation"]
        elif row["event"] == "node no longer owned":
            nodes.pop(str(row["node"]), None)
    return nodes


async def until_owned(street: Street, *gateways: str) -> None:
    """Wait until the gateways own all bins between them."""
    bins = {member.name for member in street.members if member.role == "bin"}
    async with asyncio.timeout(_PATIENCE_S):
        while not bins <= {node for name in gateways for node in owned(street, name)}:
            await asyncio.sleep(0.1)


async def owner_and_other(street: Street) -> tuple[str, str]:
    """Wait until all is owned; return who owns most, and the other one."""
    await until_owned(street, "gw1", "gw2")
    first, second = sorted(street.gateways, key=lambda name: len(owned(street, name)))
    return second, first


async def until_readings(street: Street, gateway: str, more: int) -> None:
    """Wait until a gateway has stored so many readings more."""

    def number() -> int:
        with sqlite3.connect(f"file:{street.database_of(gateway)}?mode=ro", uri=True) as db:
            return int(db.execute("select count(*) from readings").fetchone()[0])

    goal = number() + more
    async with asyncio.timeout(_PATIENCE_S):
        while number() < goal:
            await asyncio.sleep(0.05)


def test_the_owner_is_killed_with_readings_that_it_never_delivered(tmp_path: Path) -> None:
    """What it had heard alone, and acknowledged or not, the next owner fetches from the nodes."""
    dead: list[str] = []

    async def kill(demo: Demo) -> None:
        street = demo.street
        dies, lives = await owner_and_other(street)
        dead.append(dies)
        await until_readings(street, lives, 2)  # it knows the epochs by now
        street.uplinks[dies].cut()
        street.air.deaf.add(f"hci{street.gateways.index(lives)}")
        await until_readings(street, dies, 3)
        await demo.kill_gateway(dies)
        street.air.deaf.clear()
        await until_owned(street, lives)

    verdict = run_street(
        tmp_path, bins=3, lamps=0, duration_s=8, during=kill, gateways=2, scale=_SCALE
    )
    run = tmp_path / "run"
    assert_accounted(verdict)
    assert verdict.figures["declared_lost"] == 0
    stored = read_all(run)["" if dead == ["gw1"] else "gw2"].readings
    arrived = read_delivered(run / "subscriber.jsonl").readings
    left = {row.identity for row in stored} - {
        row.identity for row in arrived if row.extra["gateway"] == dead[0]
    }
    assert len(left) >= 3
    assert left <= {row.identity for row in arrived}


def test_the_owner_is_cut_off_and_comes_back(tmp_path: Path) -> None:
    """It stores what it hears and yields; commands to the group have one result each."""
    done: list[str] = []

    async def cut(demo: Demo) -> None:
        street = demo.street
        away, stays = await owner_and_other(street)
        before = owned(street, away)
        street.uplinks[away].cut()
        await until_owned(street, stays)
        after = owned(street, stays)
        assert all(after[node] > before[node] for node in before)  # type: ignore[operator]
        async with asyncio.timeout(_PATIENCE_S):
            while owned(street, away):  # its log is behind by a tick
                await asyncio.sleep(0.05)
        await until_readings(street, away, 2)  # it goes on storing what it hears
        street.uplinks[away].join()
        await until_readings(street, away, 2)
        done.append(away)

    verdict = run_street(
        tmp_path,
        bins=3,
        lamps=1,
        duration_s=14,
        during=cut,
        gateways=2,
        scale=_SCALE,
        faults=calm(14),
    )
    assert done
    assert_accounted(verdict)
    assert verdict.figures["declared_lost"] == 0
    assert verdict.figures["duplicates_across_gateways"] > 5
    assert verdict.figures["commands_sent"] > 10
