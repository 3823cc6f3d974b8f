"""Streets that two gateways hear, of which one dies or is cut off: nothing lost, one owner each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from kerb_tools.demo.run import Demo
from streets import assert_accounted, run_street

_OWNED_S = 15.0


def owners(run: Path, gateway: str) -> set[str]:
    """Return the nodes that a gateway's log says it owns by now."""
    owned: set[str] = set()
    path = run / ("gateway.log" if gateway == "gw1" else f"gateway-{gateway}.log")
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["event"] == "node owned":
            owned.add(row["node"])
        elif row["event"] == "node no longer owned":
            owned.discard(row["node"])
    return owned


async def until_owned(demo: Demo, *gateways: str, nothing_else: bool = False) -> None:
    """Wait until the gateways own all nodes between them."""
    run = demo.street.run_dir
    nodes = {member.name for member in demo.street.members if member.role == "bin"}
    async with asyncio.timeout(_OWNED_S):
        while set().union(*(owners(run, name) for name in gateways)) < nodes:
            await asyncio.sleep(0.1)


def test_of_two_gateways_one_is_killed_and_never_returns(tmp_path: Path) -> None:
    heirs: list[set[str]] = []

    async def kill(demo: Demo) -> None:
        await until_owned(demo, "gw1", "gw2")
        first = owners(demo.street.run_dir, "gw1") or owners(demo.street.run_dir, "gw2")
        dies = "gw1" if first == owners(demo.street.run_dir, "gw1") else "gw2"
        lives = "gw2" if dies == "gw1" else "gw1"
        await asyncio.sleep(2)
        await demo.kill_gateway(dies)
        await until_owned(demo, lives)
        heirs.append(owners(demo.street.run_dir, lives))

    verdict = run_street(tmp_path, bins=3, lamps=0, duration_s=16, during=kill, gateways=2)
    print(verdict.figures)
    assert_accounted(verdict)
