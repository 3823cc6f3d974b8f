"""kerb bench gateway: one reading per MQTT message, from a broker below to a broker above.

In turns, several times, each through fresh brokers and stores: Kerbstone's gateway process, raw
paho that only subscribes, raw SQLite that only commits, mosquitto's bridge and, where the package
index has it, ThingsBoard's gateway with SQLite storage. Then each once at a steady rate, for its
latency. What came out is compared with what went in, reading by reading.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from kerb_tools.bench import course
from kerb_tools.bench.peers import sqlite_commit
from kerb_tools.bench.peers.base import Missing, Peer
from kerb_tools.bench.peers.bridge import Bridge
from kerb_tools.bench.peers.kerbstone import Kerbstone
from kerb_tools.bench.peers.paho_subscribe import PahoSubscribe
from kerb_tools.bench.peers.thingsboard import ThingsBoard, interpreter
from kerb_tools.bench.result import Bar, Result

ROUNDS = 3
# The same for each; a peer that is slower takes longer. Enough for what a start costs once (the
# keys of 200 nodes, the first pages of a file) not to count.
COUNTS: dict[type[Peer], int] = {
    Kerbstone: 60_000,
    PahoSubscribe: 60_000,
    Bridge: 60_000,
    ThingsBoard: 60_000,
}
STEADY_PER_S = 400.0
STEADY_COUNT = 2_000
_QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
_CPU_BAR = 1.8
_RATE_BAR = 2.5
_RSS_BAR_MB = 80.0
Runs = dict[type[Peer], list[course.Run]]


def run(seed: int) -> Result:
    """Measure and compare."""
    result = Result("gateway", seed)
    peers: list[type[Peer]] = [Kerbstone, PahoSubscribe, Bridge, ThingsBoard]
    try:
        interpreter()
    except Missing as error:
        result.figures["thingsboard_gateway_skipped"] = str(error)
        peers.remove(ThingsBoard)
    for peer in peers:
        result.figures[f"{peer.name}_durability"] = peer.durability
    runs: Runs = {peer: [] for peer in peers}
    raw: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        for peer in peers:
            runs[peer].append(asyncio.run(course.run(peer, COUNTS[peer])))
        with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
            raw.append(sqlite_commit.rates(Path(folder)))
    for peer in peers:
        _figures(result, peer, runs[peer])
    for name in raw[0]:
        result.spread(name, [one[name] for one in raw], 1 if name.endswith("us") else 0)
    for peer in peers:
        if peer is not PahoSubscribe:
            _latency(result, peer)
    _ratios(result, runs)
    return result


def _figures(result: Result, peer: type[Peer], runs: list[course.Run]) -> None:
    result.spread(f"{peer.name}_per_s", [one.rate_per_s for one in runs], 0)
    result.spread(f"{peer.name}_cpu_us", [one.cpu_us for one in runs])
    result.spread(f"{peer.name}_written_bytes", [one.written_bytes for one in runs], 0)
    result.figures[f"{peer.name}_rss_mb"] = round(max(one.peak_mb for one in runs), 1)
    missing = [one.missing for one in runs if one.missing is not None]
    if missing:
        result.figures[f"{peer.name}_missing"] = sum(missing)


def _latency(result: Result, peer: type[Peer]) -> None:
    """One run at a steady rate: from the load's socket to the sink's."""
    steady = asyncio.run(course.run(peer, STEADY_COUNT, STEADY_PER_S))
    ordered = sorted(steady.latencies_ms)
    for name, share in _QUANTILES.items():
        at = min(len(ordered) - 1, int(len(ordered) * share))
        result.figures[f"{peer.name}_{name}_ms"] = round(ordered[at], 1)


def _ratios(result: Result, runs: Runs) -> None:
    """Compare what ran side by side in one round; the median of the rounds counts."""
    ours = runs[Kerbstone]

    def ratio(name: str, peer: type[Peer], figure: str) -> float:
        pairs = zip(ours, runs[peer], strict=True)
        values = [getattr(mine, figure) / getattr(other, figure) for mine, other in pairs]
        return result.spread(name, values, 2)

    cpu = ratio("cpu_over_paho_subscribe", PahoSubscribe, "cpu_us")
    ratio("rate_over_paho_subscribe", PahoSubscribe, "rate_per_s")
    ratio("rate_over_mosquitto_bridge", Bridge, "rate_per_s")
    result.bars.append(Bar("cpu_over_paho_subscribe", round(cpu, 2), _CPU_BAR, at_least=False))
    if ThingsBoard in runs:
        rate = ratio("rate_over_thingsboard", ThingsBoard, "rate_per_s")
        result.bars.append(Bar("rate_over_thingsboard", round(rate, 2), _RATE_BAR, at_least=True))
    rss_mb = statistics.median(one.peak_mb for one in ours)
    result.bars.append(Bar("kerbstone_rss_mb", round(rss_mb, 1), _RSS_BAR_MB, at_least=False))
    lost = sum(one.missing or 0 for one in ours)
    result.bars.append(Bar("kerbstone_missing", lost, 0, at_least=False))
