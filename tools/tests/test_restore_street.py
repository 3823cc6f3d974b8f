"""A street whose gateway is restored from a backup of some readings ago: nothing is missing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from kerb_check.database import read_all
from kerb_check.delivered import read as read_delivered
from kerb_sim.air.medium import Advert
from kerb_sim.street import Street
from kerb_tools.demo.run import Demo
from streets import assert_accounted, run_street

_PATIENCE_S = 20.0
_SCALE = 900.0  # a wake each second


def newest(street: Street) -> dict[str, int]:
    """Return {node: highest number} of what is stored."""
    with sqlite3.connect(f"file:{street.database_of('gw1')}?mode=ro", uri=True) as db:
        return dict(
            db.execute(
                "select n.node_id, max(r.seq) from readings r join streams s using (stream_no) "
                "join nodes n using (node_no) group by 1"
            ).fetchall()
        )


async def until_higher(street: Street, than: dict[str, int], by: int) -> dict[str, int]:
    """Wait until each node has been heard `by` numbers further."""
    names = [member.name for member in street.members]
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            now = newest(street)
            if all(now.get(name, 0) >= than.get(name, 0) + by for name in names):
                return now
            await asyncio.sleep(0.05)


async def gateway_command(street: Street, *words: str) -> dict[str, Any]:
    """Run a command of the operator's; returns its answer."""
    config = str(street.config_of("gw1"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kerb_gateway", *words, "--config", config, "--json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(output))


def log_of(street: Street, event: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in street.log_of("gw1").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


def replay(street: Street, recordings: dict[str, bytes]) -> None:
    """Put recorded adverts on the air again."""
    for address, data in recordings.items():
        node = next(m.name for m in street.members if m.board.radio.address == address)  # type: ignore[union-attr]
        counter = int.from_bytes(data[-8:-4], "little")
        street.record.write("replay", node=node, counter=counter)
        street.injected += 1
        street.air.inject(Advert(address, data, -60, False))


def test_a_restored_gateway_believes_no_recording_and_misses_nothing(tmp_path: Path) -> None:
    streets: list[Street] = []
    epochs: list[str] = []

    async def story(demo: Demo) -> None:
        street = demo.street
        backed_up = await until_higher(street, {}, 2)
        await gateway_command(street, "backup", str(street.run_dir / "copy"))
        await until_higher(street, backed_up, 1)
        recordings = dict(street._heard)
        await demo.stop_gateway()
        done = await gateway_command(street, "restore", str(street.run_dir / "copy"))
        epochs.extend([*done["before"], done["gw_epoch"]])
        began = len(log_of(street, "started"))
        await demo.start_gateway()
        async with asyncio.timeout(_PATIENCE_S):
            while len(log_of(street, "started")) == began:
                await asyncio.sleep(0.02)
        replay(street, recordings)
        streets.append(street)

    verdict = run_street(tmp_path, bins=2, lamps=0, duration_s=3, during=story, scale=_SCALE)
    assert_accounted(verdict)
    assert verdict.figures["declared_lost"] == 0
    assert "quarantined" in {row["why"] for row in log_of(streets[0], "advert refused")}
    run = tmp_path / "run"
    delivered = read_delivered(run / "subscriber.jsonl")
    assert {epoch for _, epoch in delivered.over} == {epochs[0]}
    assert {row.content["gw_epoch"] for row in delivered.readings} == set(epochs)
    # What was heard before the restore came again, fetched from the nodes under the new epoch.
    times: dict[Any, set[str]] = {}
    for row in delivered.readings:
        times.setdefault(row.identity, set()).add(row.content["gw_epoch"])
    assert any(len(both) == 2 for both in times.values())
    assert len(read_all(run)[""].readings) == len({row.identity for row in delivered.readings})
