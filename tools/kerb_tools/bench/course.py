"""One run of a peer in `kerb bench gateway`: two brokers, a load, a sink, and what it cost.

Rule: every peer runs the same course; brokers, folders and stores are new for each run, and what
came out is compared with what went in, reading by reading.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.bench import load, process
from kerb_tools.bench.brokers import WINDOW, BenchBroker
from kerb_tools.bench.peers.base import Peer
from kerb_tools.bench.sink import Sink

_MIDS = 65535
_RUN_S = 120.0
_LOAD_WINDOW = 1000
_QUIET_S = 5.0

PeerOf = Callable[[Path, BenchBroker, BenchBroker], Peer]


@dataclass(frozen=True)
class Run:
    """What one run gave; missing: readings that never came, None where none are forwarded."""

    rate_per_s: float
    cpu_us: float
    peak_mb: float
    written_bytes: float  # a reading
    latencies_ms: list[float]
    missing: int | None
    broker_cpu_us: float


async def run(peer_of: PeerOf, count: int, rate: float = 0.0) -> Run:
    """Send `count` readings through a fresh peer, `rate` a second (0: as fast as it can)."""
    with tempfile.TemporaryDirectory(prefix="kerb-bench-") as text:
        folder = Path(text)
        upstream = BenchBroker(folder / "upstream")
        inbound = BenchBroker(folder / "inbound")
        place = folder / "peer"
        place.mkdir()
        peer = peer_of(place, inbound, upstream)
        inbound = BenchBroker(folder / "inbound", peer.inbound_settings)
        peer.inbound = inbound
        await upstream.start()
        await inbound.start()
        try:
            await peer.start()
            return await _measure(peer, folder, count, rate)
        finally:
            await peer.stop()
            await inbound.stop()
            await upstream.stop()


async def _measure(peer: Peer, folder: Path, count: int, rate: float) -> Run:
    packets = [load.publish(*peer.message(number), number % _MIDS + 1) for number in range(count)]
    load.write(folder / "load", packets)
    sink = await Sink.subscribe(peer.upstream.port, peer.upstream_topic, peer.mark, count)
    loader = await _loader(peer.inbound.port, folder / "load", rate)
    before, brokers = process.of(peer.pids), process.of([peer.inbound.pid, peer.upstream.pid])
    began_ns = time.monotonic_ns()
    output, _ = await asyncio.wait_for(loader.communicate(b"\n"), _RUN_S)
    await _arrived(sink, sink.enough)
    cost = process.of(peer.pids).since(before)
    broker_cost = process.of([peer.inbound.pid, peer.upstream.pid]).since(brokers)
    sent_ns = json.loads(output)
    latencies, missing, last_ns = _compare(peer, sink, sent_ns, count)
    if missing:  # some came twice, so that the last of the others may still be on their way
        await _arrived(sink, asyncio.Event())
        latencies, missing, last_ns = _compare(peer, sink, sent_ns, count)
    took_s = (last_ns - began_ns) / 1e9
    return Run(
        count / took_s,
        cost.cpu_s / count * 1e6,
        cost.peak_kb / 1024,
        cost.written_bytes / count,
        latencies,
        missing,
        broker_cost.cpu_s / count * 1e6,
    )


async def _arrived(sink: Sink, enough: asyncio.Event) -> None:
    """Wait for all of them, or until nothing has come for a while: a peer may lose some."""
    while not enough.is_set():
        sink.moved.clear()
        try:
            await asyncio.wait_for(sink.moved.wait(), _QUIET_S)
        except TimeoutError:
            return


async def _loader(port: int, file: Path, rate: float) -> asyncio.subprocess.Process:
    arguments = ["-m", "kerb_tools.bench.load", str(port), str(file), str(rate)]
    loader = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        str(_LOAD_WINDOW if rate == 0 else WINDOW),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        limit=1 << 26,
    )
    if loader.stdout is None:
        raise RuntimeError("the load has no output")
    await loader.stdout.readline()
    return loader


def _compare(
    peer: Peer, sink: Sink, sent_ns: list[int], count: int
) -> tuple[list[float], int | None, int]:
    """Return latencies, how many never came, and when the last one had come for the first time."""
    if not peer.identity.groups:
        return [], None, sink.last_ns
    came = sink.arrivals(peer.identity)
    keys = [peer.key(number) for number in range(count)]
    latencies = [
        (came[key] - sent) / 1e6 for key, sent in zip(keys, sent_ns, strict=True) if key in came
    ]
    return latencies, sum(key not in came for key in keys), max(came.values())
