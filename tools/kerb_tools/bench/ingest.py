"""kerb bench ingest: the gateway's own part of a reading's way, from sealed bundle to PUBACK.

The gateway's real parts in this process: nodes' messages, ingest, a store on disk, publisher. Only
the two MQTT clients are left out: what stands in for them hands over a message that has arrived,
and answers each that is sent. Beside it, in turns, what nobody can leave out: opening the same
bundles and reading their records. What is compared between two versions is the ratio to it, for
the machine's speed changes within minutes.
"""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from kerb_gateway.burial import Burial
from kerb_gateway.clock import SystemClock
from kerb_gateway.crypto import ccm_opener, new_ecb
from kerb_gateway.ingest import Ingest
from kerb_gateway.links.mqtt import Arrived
from kerb_gateway.links.nodes_mqtt import NodesMqtt
from kerb_gateway.model import Node
from kerb_gateway.publisher import Batch, Publisher
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics
from kerb_wire import bundle, records

from kerb_tools.bench import readings
from kerb_tools.bench.brokers import WINDOW
from kerb_tools.bench.peers.kerbstone import COMMIT_ROWS, COMMIT_S, NODES
from kerb_tools.bench.result import Result

_ROUNDS = 5
_READINGS = 30_000
_A_TURN = 200  # that arrive together
_IN_FLIGHT = 100
_MARK_S = 60.0
_MIDS = 65535
_RUN_S = 120.0


def run(seed: int) -> Result:
    """Measure and compare."""
    result = Result("ingest", seed)
    ours: list[float] = []
    opening: list[float] = []
    bundles = _bundles(seed)
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
            gc.collect()
            ours.append(asyncio.run(_measure(Path(folder), bundles, seed)))
        opening.append(_opening(bundles, seed))
    result.figures["readings"] = _READINGS
    result.spread("cpu_us", ours)
    result.spread("opening_cpu_us", opening)
    pairs = zip(ours, opening, strict=True)
    result.spread("cpu_over_opening", [mine / least for mine, least in pairs], 2)
    return result


def _bundles(seed: int) -> list[tuple[str, bytes]]:
    """Return (topic, payload) of every reading, node after node."""
    rng = random.Random(seed)
    sealers = [
        (
            bundle.up_topic(node.node_id),
            new_ecb(bundle.bundle_key(new_ecb, node.root_key, readings.EPOCH)),
        )
        for node in readings.nodes(NODES, seed)
    ]
    made = []
    for number in range(_READINGS):
        topic, ecb = sealers[number % NODES]
        seq = number // NODES + 1
        record = readings.record(seq, rng)
        made.append((topic, bundle.seal(ecb, readings.EPOCH, seq, [record])))
    return made


def _opening(bundles: list[tuple[str, bytes]], seed: int) -> float:
    """Return the CPU microseconds of opening a bundle and reading its record."""
    openers = {
        bundle.up_topic(node.node_id): ccm_opener(
            bundle.bundle_key(new_ecb, node.root_key, readings.EPOCH), bundle.TAG_BYTES
        )
        for node in readings.nodes(NODES, seed)
    }
    before_s = time.process_time()
    for topic, payload in bundles:
        for packed in bundle.open_with(openers[topic], payload):
            records.unpack(packed)
    return (time.process_time() - before_s) / len(bundles) * 1e6


async def _measure(folder: Path, bundles: list[tuple[str, bytes]], seed: int) -> float:
    """Return the CPU microseconds a reading, of all threads."""
    store = Store(folder / "gateway.sqlite")
    await store.open()
    nodes = readings.nodes(NODES, seed)
    await store.write(
        [("insert into nodes values (?,?,?)", [n.node_no, n.node_id, n.role]) for n in nodes]
    )
    above, below = _Above(len(bundles)), _Below()
    topics = Topics("north", "gw1")
    ledger = await Ledger.load(store, NativePayloads(topics, store.gw_epoch), nodes, _silent)
    ingest = Ingest(
        ledger, nodes, SystemClock(), _silent, commit_interval_s=COMMIT_S, commit_rows=COMMIT_ROWS
    )
    jobs = [
        ingest.run(),
        _link(below, nodes, ingest).run(),
        _publisher(ledger, ingest, topics, above).run(),
    ]
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        before_s = time.process_time()
        async with asyncio.timeout(_RUN_S):
            await below.bring(bundles)
            await above.enough.wait()
        return (time.process_time() - before_s) / len(bundles) * 1e6
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


def _link(below: _Below, nodes: list[Node], ingest: Ingest) -> NodesMqtt:
    return NodesMqtt(below, nodes, ingest, WINDOW, _silent)  # type: ignore[arg-type]


def _publisher(ledger: Ledger, ingest: Ingest, topics: Topics, above: _Above) -> Publisher:
    return Publisher(
        ledger.outbox,
        above,
        ingest.committed,
        _silent,
        in_flight=_IN_FLIGHT,
        mark_s=_MARK_S,
        bury=Burial(ledger, ingest.commit).bury,
        batch=Batch(topics.batch, 200),
    )


class _Below:
    """The nodes' broker, as far as NodesMqtt needs one: a window of unacknowledged messages."""

    connected = True

    def __init__(self) -> None:
        self.arrived: deque[Arrived] = deque()
        self.something = asyncio.Event()
        self._room = asyncio.Event()
        self._unacked = 0

    async def bring(self, bundles: list[tuple[str, bytes]]) -> None:
        """Let all arrive, a turn's worth at once, within the window."""
        for at in range(0, len(bundles), _A_TURN):
            turn = bundles[at : at + _A_TURN]
            while self._unacked + len(turn) > WINDOW:
                self._room.clear()
                await self._room.wait()
            self._unacked += len(turn)
            self.arrived.extend(
                Arrived(topic, payload, False, (at + number) % _MIDS + 1, 1)
                for number, (topic, payload) in enumerate(turn)
            )
            self.something.set()
            await asyncio.sleep(0)

    def ack(self, messages: list[Arrived]) -> None:
        """Take acknowledgements."""
        self._unacked -= len(messages)
        self._room.set()

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Take the nodes' answers."""
        deque(messages, maxlen=0)


class _Above:
    """The broker upstream, as far as Publisher needs one: every message has its PUBACK."""

    receive_maximum = _MIDS
    maximum_packet_bytes = 268_435_455

    def __init__(self, readings_wanted: int) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.enough = asyncio.Event()
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self._wanted = readings_wanted
        self._mid = 0
        self._sent: list[int] = []

    def publish(self, topic: str, payload: bytes) -> int:
        """Take a message; its PUBACK comes with the next turn's."""
        self._mid = self._mid % _MIDS + 1
        if not self._sent:
            asyncio.get_running_loop().call_soon(self._answer)
        self._sent.append(self._mid)
        self._wanted -= payload.count(b'"id":')
        return self._mid

    def renew(self) -> None:
        """Nothing is ever owed here."""

    def _answer(self) -> None:
        sent, self._sent = self._sent, []
        for mid in sent:
            self.on_acked(mid, 0)
        if self._wanted <= 0:
            self.enough.set()


def _silent(event: str, **fields: object) -> None:
    """Say nothing."""
