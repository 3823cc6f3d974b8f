"""kerb bench drain: how fast a backlog goes out, beside bare paho to the same broker.

In turns, several times: N readings from a real store through the real publisher and uplink to a
private mosquitto until each PUBACK is there, one message a reading and then 64 of them together;
then N messages of the same size by paho alone, with as many in flight. Rates and CPU time a
reading are medians; a ratio compares what ran side by side in one round.

With --rows: a gateway process drains backlogs of these sizes, nine times in turns; of each the
first and the last 100,000 readings are timed, and ThingsBoard's gateway runs from end to end
beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
from kerb_gateway.clock import SystemClock
from kerb_gateway.ingest import Ingest
from kerb_gateway.publisher import Batch, Publisher, Refused
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.mqtt import Uplink
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics
from kerb_sim.broker import Broker
from paho.mqtt.enums import CallbackAPIVersion

from kerb_tools.bench import backlog, course, readings
from kerb_tools.bench.peers import thingsboard
from kerb_tools.bench.peers.base import Missing
from kerb_tools.bench.result import Bar, Result

READINGS = 10_000
_NODES = 200
_IN_FLIGHT = 100
_ROUNDS = 3
_BACKLOG_ROUNDS = 9  # each part takes a second, and hosts are restless for longer than that
_TOPICS = Topics("north", "gw1")
Took = tuple[float, float]  # seconds, CPU seconds
_CPU_BAR = 1.8  # times bare paho, one message a reading
_PART = 100_000  # of a backlog, from its begin and from its end
_PEER_READINGS = 20_000
_PEER_BAR = 4.0  # times ThingsBoard's end-to-end rate
_SAME_RATE_BAR = 0.9  # the largest backlog's rate, as a share of the smallest one's
_RSS_BAR_MB = 80.0
_RATE_BAR = 1.5  # times bare paho, when readings travel together


def run(seed: int, rows: Sequence[int] = ()) -> Result:
    """Measure and compare; rows: also drain backlogs of so many rows, by a gateway process."""
    if rows:
        return _backlogs(seed, rows)
    result = Result("drain", seed)
    with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
        rounds = asyncio.run(_measure(Path(folder), seed))
    for name in rounds[0]:
        result.spread(f"{name}_per_s", [READINGS / one[name][0] for one in rounds], 0)
        result.spread(f"{name}_cpu_us", [one[name][1] / READINGS * 1e6 for one in rounds])
    for name in ("singly", "batched"):
        for figure, index in (("rate", 0), ("cpu", 1)):
            ratios = [one[name][index] / one["paho"][index] for one in rounds]
            ratio = statistics.median(1 / value if index == 0 else value for value in ratios)
            result.figures[f"{name}_{figure}_ratio"] = round(ratio, 2)
    result.bars.append(
        Bar("singly_cpu_ratio", result.figures["singly_cpu_ratio"], _CPU_BAR, at_least=False)
    )
    result.bars.append(
        Bar("batched_rate_ratio", result.figures["batched_rate_ratio"], _RATE_BAR, at_least=True)
    )
    return result


def _backlogs(seed: int, rows: Sequence[int]) -> Result:
    """Drain the first and the last readings of each backlog; compare sizes, and ThingsBoard."""
    result = Result("drain", seed)
    sizes = sorted(rows)
    with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
        rounds = asyncio.run(_all_sizes(Path(folder), sizes))
    for size in sizes:
        runs = [one for each in rounds for one in each[size]]
        name = f"rows_{size}"
        result.spread(f"{name}_per_s", [one.rate_per_s for one in runs], 0)
        result.spread(f"{name}_cpu_us", [one.cpu_us for one in runs])
        result.figures[f"{name}_first_reading_s"] = round(max(one.ready_s for one in runs), 1)
        rss_mb = round(max(one.peak_mb for one in runs), 1)
        result.bars.append(Bar(f"{name}_rss_mb", rss_mb, _RSS_BAR_MB, at_least=False))
    least, most = sizes[0], sizes[-1]
    if least != most:
        name = f"rate_at_{most}_over_{least}"
        shares = [_rate(each[most]) / _rate(each[least]) for each in rounds]
        share = result.spread(name, shares, 2)
        result.bars.append(Bar(name, round(share, 2), _SAME_RATE_BAR, at_least=True))
    _beside_thingsboard(result, [_rate(each[sizes[0]]) for each in rounds])
    return result


def _rate(runs: Sequence[backlog.Drained]) -> float:
    return statistics.mean(one.rate_per_s for one in runs)


def _beside_thingsboard(result: Result, rates: list[float]) -> None:
    try:
        thingsboard.interpreter()
    except Missing as error:
        result.figures["thingsboard_gateway_skipped"] = str(error)
        return
    peer = asyncio.run(course.run(thingsboard.ThingsBoard, _PEER_READINGS))
    result.figures["thingsboard_gateway_per_s"] = round(peer.rate_per_s)
    share = round(statistics.median(rates) / peer.rate_per_s, 2)
    result.bars.append(Bar("drain_over_thingsboard", share, _PEER_BAR, at_least=True))


async def _all_sizes(folder: Path, sizes: list[int]) -> list[dict[int, list[backlog.Drained]]]:
    """Drain each backlog's first readings, then its last ones; size by size, in rounds.

    Every other round begins with the largest, so that a host which becomes slower or faster
    meanwhile speaks for no size.
    """
    for size in sizes:
        place = folder / str(size)
        place.mkdir()
        await backlog.make(place / "gateway.sqlite", size)
    rounds = []
    for number in range(_BACKLOG_ROUNDS):
        each: dict[int, list[backlog.Drained]] = {size: [] for size in sizes}
        for size in reversed(sizes) if number % 2 else sizes:
            part = min(_PART, size)
            for begin in (0, size - part):
                backlog.begin_at(folder / str(size) / "gateway.sqlite", begin)
                each[size].append(await backlog.drain(folder / str(size), part))
        rounds.append(each)
    return rounds


async def _measure(folder: Path, seed: int) -> list[dict[str, Took]]:
    """Return what each way took, for each round."""
    broker = Broker(folder / "broker")
    await broker.start()
    try:
        rounds = []
        for number in range(_ROUNDS):
            singly, payload = await _gateway(folder / f"{number}.sqlite", broker.port, seed, 1)
            batched, _ = await _gateway(folder / f"{number}b.sqlite", broker.port, seed, 64)
            paho = await asyncio.to_thread(_paho, broker.port, payload)
            rounds.append({"singly": singly, "batched": batched, "paho": paho})
        return rounds
    finally:
        await broker.stop()


async def _gateway(path: Path, port: int, seed: int, batch_rows: int) -> tuple[Took, bytes]:
    store = Store(path)
    await store.open()
    ledger = await fill(store, seed, READINGS, _NODES)
    uplink = Uplink(
        host="127.0.0.1", port=port, client_id="bench", username=None, password=None,
        availability=_TOPICS.availability, commands=_TOPICS.commands, keepalive_s=60,
        protocol="auto", log=_silent,
    )  # fmt: skip

    async def bury(refused: Refused) -> None:
        raise RuntimeError(f"the broker refused a reading: {refused[0][1]}")

    publisher = Publisher(
        ledger.outbox, uplink, asyncio.Event(), _silent,
        in_flight=_IN_FLIGHT, mark_s=60, bury=bury, batch=Batch(_TOPICS.batch, batch_rows),
    )  # fmt: skip
    sample = (await ledger.outbox.after(0, 1))[0].payload
    ledger.outbox.ended(1)
    uplink.start()
    await uplink.connected.wait()
    began, cpu = time.perf_counter(), time.process_time()
    task = asyncio.ensure_future(publisher.run())
    while publisher.delivered < READINGS:
        await asyncio.sleep(0.005)
    took = (time.perf_counter() - began, time.process_time() - cpu)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await uplink.stop(1)
    await store.close()
    return took, sample


async def fill(store: Store, seed: int, count: int, node_count: int) -> Ledger:
    """Store `count` readings of `node_count` nodes; returns the ledger over them."""
    nodes = readings.nodes(node_count, seed)
    await store.write(
        [("insert into nodes values (?,?,?)", [n.node_no, n.node_id, n.role]) for n in nodes]
    )
    payloads = NativePayloads(_TOPICS, store.gw_epoch)
    ledger = await Ledger.load(store, payloads, nodes, _silent)
    ingest = Ingest(
        ledger, nodes, SystemClock(), _silent, commit_interval_s=3600, commit_rows=1 << 30
    )
    for node in nodes:
        await ingest.epoch(node, readings.EPOCH, 0)
    senders = [readings.Sender(node, seed + node.node_no) for node in nodes]
    for number, heard in enumerate(readings.rounds(senders, count), 1):
        ingest.advert(heard)
        if number % 1000 == 0:
            await ingest.commit()
    await ingest.commit()
    return ledger


def _paho(port: int, payload: bytes) -> Took:
    """Publish as many messages of the same size by paho alone."""
    window = threading.Semaphore(_IN_FLIGHT)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(0)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.on_publish = lambda *_: window.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    connected.wait(10)
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(READINGS):
        window.acquire()
        client.publish(_TOPICS.of(f"a4cf{number % _NODES:08x}", "reading"), payload, qos=1)
    for _ in range(_IN_FLIGHT):
        window.acquire()
    took = (time.perf_counter() - began, time.process_time() - cpu)
    client.disconnect()
    client.loop_stop()
    return took


def _silent(event: str, **fields: object) -> None:
    """Say nothing."""
