"""The benches' course: a real gateway between two brokers; what goes in comes out."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kerb_sim.broker import find_mosquitto
from kerb_tools.bench import backlog, course, load
from kerb_tools.bench.peers.kerbstone import Kerbstone
from streets import need

READINGS = 1200  # six of each node


def test_wifi_nodes_readings_come_out_upstream_each() -> None:
    need("mosquitto", find_mosquitto())
    run = asyncio.run(course.run(Kerbstone, READINGS))
    assert run.missing == 0
    assert len(run.latencies_ms) == READINGS
    assert run.cpu_us > 0


def test_a_made_backlog_is_drained_by_a_gateway(tmp_path: Path) -> None:
    need("mosquitto", find_mosquitto())

    async def story() -> backlog.Drained:
        await backlog.make(tmp_path / "gateway.sqlite", 3000)
        backlog.begin_at(tmp_path / "gateway.sqlite", 1000)
        return await backlog.drain(tmp_path, 2000)

    assert asyncio.run(story()).rate_per_s > 0


def test_a_loads_file_reads_back(tmp_path: Path) -> None:
    packets = [load.publish("t", bytes(size), size + 1) for size in (0, 1, 120, 130, 20_000)]
    load.write(tmp_path / "load", packets)
    assert load.read(tmp_path / "load") == packets
    assert packets[3][:3] == b"\x32\x87\x01"  # 135 bytes follow: a length of two bytes
