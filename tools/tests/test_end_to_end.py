"""Whole streets on real parts while things are killed: nothing may be lost silently."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from kerb_tools.demo.run import Demo
from streets import SEED, assert_accounted, run_street

_KILLS = 20


def test_gateway_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    rng = random.Random(SEED)

    async def kill(demo: Demo) -> None:
        for _ in range(_KILLS):
            await asyncio.sleep(rng.uniform(0.4, 2.2))
            await demo.kill_gateway()
            await demo.start_gateway()

    verdict = run_street(tmp_path, bins=3, lamps=3, duration_s=30, during=kill)
    assert_accounted(verdict)
    assert verdict.figures["readings_delivered_unique"] > 40


def test_broker_killed_and_back(tmp_path: Path) -> None:
    async def kill(demo: Demo) -> None:
        await asyncio.sleep(6)
        await demo.street.broker.stop(kill=True)
        await asyncio.sleep(1.5)
        await demo.street.broker.start()

    verdict = run_street(tmp_path, bins=2, lamps=2, duration_s=14, during=kill)
    assert_accounted(verdict)


def test_bus_units_that_answer_late_garble_and_die(tmp_path: Path) -> None:
    async def trouble(demo: Demo) -> None:
        lamps = [member.name for member in demo.street.members if member.role == "lamp"]
        bus = demo.street.bus
        await asyncio.sleep(4)
        bus.trouble(lamps[0], late_ms=600)
        bus.trouble(lamps[1], garble=0.05)
        bus.trouble(lamps[2], dead=True)
        await asyncio.sleep(5)
        for lamp in lamps[:3]:
            bus.trouble(lamp)

    verdict = run_street(tmp_path, bins=0, lamps=4, duration_s=14, during=trouble)
    assert_accounted(verdict)
    assert verdict.figures["commands_applied"] > 0


def test_bluetooth_daemon_dies_and_returns(tmp_path: Path) -> None:
    async def die(demo: Demo) -> None:
        await asyncio.sleep(4)
        await demo.street.bluez.stop()
        await asyncio.sleep(1)
        await demo.street.bluez.start()

    config = "deaf_after_s"
    verdict = run_street(tmp_path, bins=2, lamps=0, duration_s=16, during=die)
    assert config in (tmp_path / "run" / "gateway.toml").read_text()
    assert_accounted(verdict)


def test_sigterm_ends_the_gateway_cleanly(tmp_path: Path) -> None:
    """In the middle of a batch: what is in memory is committed, the will says offline."""

    async def stop(demo: Demo) -> None:
        await asyncio.sleep(5)
        demo.gateway.terminate()
        assert await asyncio.wait_for(demo.gateway.wait(), 5) == 0
        await demo.start_gateway()

    verdict = run_street(tmp_path, bins=2, lamps=1, duration_s=10, during=stop)
    assert_accounted(verdict)
    log = (tmp_path / "run" / "gateway.log").read_text()
    assert sum('"stopped"' in line for line in log.splitlines()) >= 2
    assert "Traceback" not in log
    assert all(json.loads(line) for line in log.splitlines() if line.startswith("{"))
