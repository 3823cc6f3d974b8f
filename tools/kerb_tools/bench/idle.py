"""kerb bench idle: what a gateway with 200 nodes costs while there is next to nothing to do.

A real gateway process with its default settings on the emulated org.bluez and a broker upstream:
each node sends one advert in 15 minutes, which is one in 4.5 s for all of them.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from kerb_tools.bench import process
from kerb_tools.bench.radio import NODES, RadioGateway, Voices, world
from kerb_tools.bench.result import Bar, Result

_SETTLE_S = 5.0
_MEASURE_S = 25.0
_INTERVAL_S = 900.0 / NODES
_CPU_BAR_PCT = 1.0
_RSS_BAR_MB = 80.0


def run(seed: int) -> Result:
    """Measure once."""
    result = Result("idle", seed)
    with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
        cpu_pct, rss_mb, adverts = asyncio.run(_measure(Path(folder)))
    result.figures = {
        "cpu_pct_of_one_core": round(cpu_pct, 2),
        "rss_mb": round(rss_mb, 1),
        "adverts": adverts,
        "measured_s": _MEASURE_S,
        "nodes": NODES,
    }
    result.bars = [
        Bar("cpu_pct_of_one_core", round(cpu_pct, 2), _CPU_BAR_PCT, at_least=False),
        Bar("rss_mb", round(rss_mb, 1), _RSS_BAR_MB, at_least=False),
    ]
    return result


async def _measure(folder: Path) -> tuple[float, float, int]:
    async with world(folder, RadioGateway) as here:
        voices = Voices(here.gateway)
        for _ in range(NODES):
            here.air.inject(voices.next())
        await asyncio.sleep(_SETTLE_S)
        before, began, adverts = process.of(here.gateway.pids), time.monotonic(), 0
        while time.monotonic() - began < _MEASURE_S:
            here.air.inject(voices.next())
            adverts += 1
            await asyncio.sleep(_INTERVAL_S)
        cost = process.of(here.gateway.pids).since(before)
        took_s = time.monotonic() - began
        return 100 * cost.cpu_s / took_s, cost.peak_kb / 1024, adverts
