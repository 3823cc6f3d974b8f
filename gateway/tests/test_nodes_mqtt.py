"""Wi-Fi nodes through a real broker: stored once, answered after COMMIT, forgeries refused."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from kerb_gateway.config import NodesMqttPart
from kerb_gateway.crypto import new_ecb
from kerb_gateway.errors import LinkDown
from kerb_gateway.links.mqtt import BufferedSocket, LocalBroker
from kerb_gateway.links.nodes_mqtt import NodesMqtt
from kerb_gateway.tails import Tails
from kerb_sim.broker import Broker, find_mosquitto
from kerb_wire import bundle
from mqtt_parts import ScriptedBroker
from paho.mqtt.enums import CallbackAPIVersion
from parts import EPOCH, KEY, LAMP_ID, NODE_ID, HandClock, Parts, log, record
from streets import need

_SETTLE_S = 0.3
UP = bundle.up_topic(NODE_ID)


def sealed(number: int, *seqs: int, key: bytes = KEY, epoch: int = EPOCH) -> bytes:
    """Return the bundle `number` with the records of these numbers."""
    ecb = new_ecb(bundle.bundle_key(new_ecb, key, epoch))
    return bundle.seal(ecb, epoch, number, [record(seq) for seq in seqs])


class WifiNode:
    """A node's side: a plain client that publishes and notes its answers."""

    def __init__(self, port: int) -> None:
        self.answers: list[int] = []
        self._ecb = new_ecb(bundle.ack_key(new_ecb, KEY, EPOCH))
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="node")
        self._client.on_message = self._answered
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(bundle.ack_topic(NODE_ID), qos=1)
        self._client.loop_start()

    def _answered(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        self.answers.append(bundle.open_ack(self._ecb, bytes(message.payload)).seq)

    async def send(self, *payloads: bytes, topic: str = UP, retain: bool = False) -> None:
        infos = [self._client.publish(topic, one, qos=1, retain=retain) for one in payloads]
        while not all(info.is_published() for info in infos):
            await asyncio.sleep(0.01)

    async def answered(self, seq: int) -> None:
        async with asyncio.timeout(10):
            while seq not in self.answers:
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class World:
    """A broker, a node, and a gateway's ingest behind the link."""

    def __init__(self, parts: Parts, broker: Broker, window: int) -> None:
        self.parts, self.broker, self._window = parts, broker, window
        self.node = WifiNode(broker.port)
        self._jobs: list[asyncio.Future[None]] = []

    async def link(self) -> LocalBroker:
        part = NodesMqttPart(enabled=True, port=self.broker.port, window=self._window)
        local = LocalBroker(part, "gateway", bundle.up_topic("+"), None, log)
        link = NodesMqtt(local, self.parts.nodes[:1], self.parts.ingest, self._window, log)
        self._jobs = [asyncio.ensure_future(job) for job in (local.run(), link.run())]
        async with asyncio.timeout(10):
            while not local.connected:
                await asyncio.sleep(0.01)
        return local

    async def unlink(self) -> None:
        self.parts.ingest.after_commit.clear()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def stored(self) -> list[int]:
        return await self.parts.column("select seq from readings order by seq")

    def counted(self, name: str) -> int:
        return self.parts.ledger.counters[name]


def story(tmp_path: Path, tell: Callable[[World], Awaitable[None]], window: int = 2000) -> None:
    async def run() -> None:
        broker = Broker(tmp_path / "broker")
        await broker.start()
        parts = await Parts.open(tmp_path / "g.sqlite")
        world = World(parts, broker, window)
        try:
            await tell(world)
        finally:
            await world.unlink()
            world.node.close()
            await world.parts.store.close()
            await broker.stop()

    need(find_mosquitto(), "mosquitto")
    asyncio.run(run())


def test_a_bundle_is_answered_after_its_commit_and_not_before(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        local = await world.link()
        assert isinstance(local._socket, BufferedSocket)
        await world.node.send(sealed(1, 1), sealed(2, 2, 3))
        await asyncio.sleep(_SETTLE_S)
        assert world.parts.ledger.waiting > 0
        assert local._unacked == 2
        assert world.node.answers == []
        await world.parts.ingest.commit()
        await world.node.answered(3)
        assert local._unacked == 0
        assert await world.stored() == [1, 2, 3]
        assert await world.parts.column("select distinct via from readings") == ["mqtt"]

    story(tmp_path, tell)


def test_what_comes_during_a_commit_waits_for_the_next(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        local = await world.link()
        await world.node.send(sealed(1, 1))
        await asyncio.sleep(_SETTLE_S)
        ingest = world.parts.ingest
        other = sqlite3.connect(world.parts.store.path, isolation_level=None)
        other.execute("begin immediate")  # a write of ours has to wait
        committing = asyncio.ensure_future(ingest.commit_or_full())
        await asyncio.sleep(0)
        await world.node.send(sealed(2, 2))  # the commit that runs holds the first only
        await asyncio.sleep(_SETTLE_S)
        other.execute("rollback")
        await world.node.answered(1)
        await asyncio.sleep(_SETTLE_S)
        assert local._unacked == 1
        assert world.node.answers == [1]
        await committing
        await ingest.commit()
        await world.node.answered(2)

    story(tmp_path, tell)


def test_a_gateway_that_dies_before_its_commit_gets_it_again(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        await world.link()
        await world.node.send(sealed(1, 1), sealed(2, 2))
        await asyncio.sleep(_SETTLE_S)
        await world.unlink()  # nothing was acknowledged; what is in memory dies with the process
        await world.parts.store.close()
        world.parts = await Parts.open(tmp_path / "g.sqlite")
        await world.link()
        await asyncio.sleep(_SETTLE_S)
        await world.parts.ingest.commit()
        await world.node.answered(2)
        assert await world.stored() == [1, 2]

    story(tmp_path, tell)


def test_a_repeated_bundle_is_a_duplicate_and_answered_again(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        await world.link()
        await world.node.send(sealed(1, 1, 2))
        await asyncio.sleep(_SETTLE_S)
        await world.parts.ingest.commit()
        await world.node.answered(2)
        world.node.answers.clear()
        await world.node.send(sealed(1, 1, 2))
        await asyncio.sleep(_SETTLE_S)
        await world.parts.ingest.commit()
        await world.node.answered(2)
        assert world.counted("record duplicate") == 2
        assert await world.stored() == [1, 2]

    story(tmp_path, tell)


def test_what_a_node_skipped_holds_the_answer_back(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        await world.link()
        await world.node.send(sealed(1, 1), sealed(2, 4))
        await asyncio.sleep(_SETTLE_S)
        await world.parts.ingest.commit()
        await world.node.answered(1)
        assert await world.parts.column("select first_seq from gaps") == [2]
        await world.node.send(sealed(3, 2, 3))
        await asyncio.sleep(_SETTLE_S)
        await world.parts.ingest.commit()
        await world.node.answered(4)
        assert await world.stored() == [1, 2, 3, 4]
        assert await world.parts.column("select first_seq from gaps") == []

    story(tmp_path, tell)


def test_hostile_messages_are_refused_and_counted(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        local = await world.link()
        good = sealed(1, 1)
        broken = good[:-1] + bytes([good[-1] ^ 1])
        other_epoch = bytes([good[0]]) + b"\x01\x02\x03\x04" + good[5:]
        await world.node.send(broken, other_epoch, sealed(1, 1, key=bytes(16)))
        await world.node.send(b"", b"\x00" * 41, good[:-1], good + good, b"x" * 5000)
        await world.node.send(good, topic=bundle.up_topic(LAMP_ID))  # not a Wi-Fi node
        await world.node.send(good, topic=bundle.up_topic("../x".replace("/", "")))
        await asyncio.sleep(_SETTLE_S)
        assert world.counted("message with a wrong MIC") == 3
        assert world.counted("malformed message") == 5
        assert world.counted("message of an unknown node") == 2
        assert local._unacked == 0  # none of them is kept by the broker
        assert world.parts.ledger.streams == {}
        await world.node.send(good)
        await asyncio.sleep(_SETTLE_S)
        await world.parts.ingest.commit()
        await world.node.answered(1)
        assert await world.stored() == [1]

    story(tmp_path, tell)


def test_a_topic_that_is_no_text_is_nobodys_and_ends_nothing(tmp_path: Path) -> None:
    """MQTT 5, 1.5.4 forbids it, and mosquitto keeps to it; another broker may not."""

    async def run() -> None:
        broker = ScriptedBroker()
        port = await broker.start()
        parts = await Parts.open(tmp_path / "g.sqlite")
        part = NodesMqttPart(enabled=True, port=port, protocol="5")
        local = LocalBroker(part, "gateway", bundle.up_topic("+"), None, log)
        link = NodesMqtt(local, parts.nodes[:1], parts.ingest, 2000, log)
        jobs = [asyncio.ensure_future(job) for job in (local.run(), link.run())]
        async with asyncio.timeout(10):
            while not local.connected:
                await asyncio.sleep(0.01)
        broker.publish(b"kerb/node/v1/\xff/up", sealed(1, 1), mid=1)
        broker.publish(UP.encode(), sealed(1, 1), mid=2)
        async with asyncio.timeout(10):
            while parts.ledger.waiting == 0:
                await asyncio.sleep(0.01)
        await parts.ingest.commit()
        assert await parts.column("select seq from readings") == [1]
        assert parts.ledger.counters["message of an unknown node"] == 1
        assert local._unacked == 0
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        broker.stop()
        await parts.store.close()

    asyncio.run(run())


def test_a_retained_message_is_no_reading(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        await world.node.send(sealed(1, 1), retain=True)
        await world.link()
        await asyncio.sleep(_SETTLE_S)
        assert world.counted("retained message refused") == 1
        assert world.parts.ledger.streams == {}

    story(tmp_path, tell)


def test_the_window_bounds_what_waits_and_a_full_one_commits(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        local = await world.link()
        await world.node.send(*[sealed(seq, seq) for seq in range(1, 201)])
        await asyncio.sleep(_SETTLE_S)
        assert len(local.arrived) + local._unacked <= 2 * 20
        job = asyncio.ensure_future(world.parts.ingest.run())
        await world.node.answered(200)
        job.cancel()
        assert await world.stored() == list(range(1, 201))
        assert world.counted("record duplicate") == 0

    story(tmp_path, tell, window=20)


async def tails_of(parts: Parts, clock: HandClock, silent_after_s: float) -> Tails:
    tails = Tails(
        parts.store, parts.ledger, parts.ingest.commit, clock, log, parts.nodes,
        silent_after_s=silent_after_s,
    )  # fmt: skip
    await tails.begin()
    return tails


async def said_of_tails(parts: Parts) -> list[tuple[str, int]]:
    await parts.ingest.commit()
    kinds = ("loss", "found")
    return [(o["kind"], o["first_seq"]) for o in await parts.payloads() if o["kind"] in kinds]


def test_a_node_that_sends_is_not_silent_and_a_recording_is_no_contact(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        clock = HandClock()
        await world.parts.store.close()
        world.parts = await Parts.open(tmp_path / "g.sqlite", clock)
        tails = await tails_of(world.parts, clock, 100)
        await world.link()
        for seq in (1, 2, 4, 3):  # the last fills a gap
            await world.node.send(sealed(seq, seq))
            await asyncio.sleep(_SETTLE_S)
            clock.boottime_s += 60
            await tails.look()
        assert await said_of_tails(world.parts) == []
        clock.boottime_s += 60
        await tails.look()
        assert await said_of_tails(world.parts) == [("loss", 5)]
        await world.unlink()
        await world.parts.store.close()
        world.parts = await Parts.open(tmp_path / "g.sqlite", clock)  # a new process
        await world.link()
        await world.node.send(sealed(1, 1))
        await asyncio.sleep(_SETTLE_S)
        assert world.counted("record duplicate") == 1
        assert await said_of_tails(world.parts) == [("loss", 5)]
        await world.node.send(sealed(5, 5))
        await asyncio.sleep(_SETTLE_S)
        assert await said_of_tails(world.parts) == [("loss", 5), ("found", 5)]

    story(tmp_path, tell)


def test_a_broker_that_dies_ends_the_link(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        local = await world.link()
        await world.broker.stop(kill=True)
        async with asyncio.timeout(10):
            (ended, *_), _ = await asyncio.wait(world._jobs, return_when=asyncio.FIRST_COMPLETED)
        assert isinstance(ended.exception(), LinkDown)
        assert not local.connected

    story(tmp_path, tell)
