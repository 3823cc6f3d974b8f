"""kerb bench burst: 20,000 adverts at once from the emulated org.bluez, through to the PUBACK.

The emulated bluetoothd makes its signals of 100 adverts of each of 200 nodes beforehand and sends
them as one stream, as fast as the D-Bus daemon takes them. Every counter must come out upstream
once, and the rate is that from the first advert to the last reading there.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from kerb_sim.air.medium import Advert

from kerb_tools.bench import process
from kerb_tools.bench.radio import IDENTITY, MARK, NODES, RadioGateway, Voices, World, world
from kerb_tools.bench.result import Bar, Result
from kerb_tools.bench.sink import Sink

ADVERTS = 20_000
_ROUNDS = 3
_BAR_PER_S = 2000.0
_OFFERED_BAR_S = 1.0
_WAIT_S = 120.0
_QUIET_S = 5.0


class BurstGateway(RadioGateway):
    """Commits twice a second, so that the time to the PUBACK says something about the way."""

    commit_s = 0.5


def run(seed: int) -> Result:
    """Measure some bursts, each with a new gateway."""
    result = Result("burst", seed)
    rounds = []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
            rounds.append(asyncio.run(_burst(Path(folder))))
    for name in rounds[0]:
        result.spread(name, [one[name] for one in rounds], 2)
    figures = result.figures
    bars = (
        ("missing", figures["missing_max"], 0.0, False),
        ("per_s_to_puback", figures["per_s_to_puback"], _BAR_PER_S, True),
        ("offered_in_s", figures["offered_in_s"], _OFFERED_BAR_S, False),
    )
    result.bars = [Bar(name, value, bar, at_least) for name, value, bar, at_least in bars]
    return result


async def _burst(folder: Path) -> dict[str, float]:
    async with world(folder, BurstGateway) as here:
        port = here.gateway.upstream.port
        sink = await Sink.subscribe(port, "kerb/v1/#", MARK, NODES + ADVERTS)
        voices = Voices(here.gateway)
        for _ in range(NODES):  # BlueZ makes its Device1 objects once
            here.air.inject(voices.next())
        while sink.count < NODES:
            await asyncio.wait_for(_moved(sink), _WAIT_S)
        adverts = [voices.next() for _ in range(ADVERTS)]
        before = process.of(here.gateway.pids)
        offered_s, began_ns = await _release(here, adverts)
        while not sink.enough.is_set():
            try:
                await asyncio.wait_for(_moved(sink), _QUIET_S)
            except TimeoutError:
                break
        cost = process.of(here.gateway.pids).since(before)
        came = sink.arrivals(IDENTITY)
        return {
            "offered_in_s": offered_s,
            "per_s_to_puback": (len(came) - NODES) / ((sink.last_ns - began_ns) / 1e9),
            "missing": float(NODES + ADVERTS - len(came)),
            "dropped_warnings": float(here.gateway.log.read_bytes().count(b"adverts dropped")),
            "cpu_us": cost.cpu_s / ADVERTS * 1e6,
            "rss_mb": cost.peak_kb / 1024,
        }


async def _release(here: World, adverts: list[Advert]) -> tuple[float, int]:
    """Let all adverts go at once; returns how long the bus took to take them, and the begin."""

    def say() -> None:
        for one in adverts:
            here.air.inject(one)

    signals = here.bluez.keep_back(say)
    began_ns = time.monotonic_ns()
    await asyncio.wait_for(here.bluez.let_go(signals), _WAIT_S)
    return (time.monotonic_ns() - began_ns) / 1e9, began_ns


async def _moved(sink: Sink) -> None:
    sink.moved.clear()
    await sink.moved.wait()
