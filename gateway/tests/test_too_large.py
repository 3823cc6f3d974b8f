"""A broker hangs up on what is above its Maximum Packet Size: none of that may ever be sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kerb_gateway.publisher import Publisher
from kerb_gateway.uplink.sizes import packet_bytes
from mqtt_parts import CONNACK, ScriptedBroker, packet
from parts import TOPICS, heard, log
from test_publisher import ALONE, bury_in, marked, outbox_of, reached, store_with
from test_publisher import ScriptedBroker as PublishersBroker
from test_replay import AnsweringBroker, Bench, request
from test_traps_paho import bare, until, uplink_to

_TOPIC = TOPICS.of("aa", "event")
_ROW = "insert into outbox (outbox_no, kind, topic, payload) values (?,'message',?,?)"


@pytest.mark.parametrize("size", [0, 90, 91, 92, 93, 94, 95, 16_000, 17_000])
def test_a_packet_is_as_long_as_paho_makes_it(size: int) -> None:
    async def story() -> bytes:
        received = b""
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal received
            await reader.read(4096)
            writer.write(packet(CONNACK, b"\0\0\0"))
            received = await reader.read(-1)
            writer.close()
            ended.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = bare()
        connected = asyncio.Event()
        loop = asyncio.get_running_loop()
        client.on_connect = lambda *_: loop.call_soon_threadsafe(connected.set)
        client.connect_async("127.0.0.1", server.sockets[0].getsockname()[1])
        client.loop_start()
        await asyncio.wait_for(connected.wait(), 20)
        client.publish(_TOPIC, b"x" * size, qos=1)
        client.disconnect()
        await asyncio.wait_for(ended.wait(), 20)
        await loop.run_in_executor(None, client.loop_stop)
        server.close()
        return received

    received = asyncio.run(story())
    length = packet_bytes(_TOPIC, b"x" * size)
    assert received[length - 1 :][:2] == (b"\0" if size == 0 else b"x") + b"\xe0"  # DISCONNECT


def test_a_row_that_the_broker_cannot_take_is_a_dead_letter(tmp_path: Path) -> None:
    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 0)
        fits, exceeds = b'"%s"' % (b"x" * 200), b'"%s"' % (b"x" * 201)
        await store.write([(_ROW, [n, _TOPIC, exceeds if n == 2 else fits]) for n in (1, 2, 3)])
        broker = PublishersBroker()
        broker.maximum_packet_bytes = packet_bytes(_TOPIC, fits)
        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), log,
            in_flight=5, mark_s=60, bury=bury_in(store), batch=ALONE,
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, 2)
        assert [payload for _, payload in broker.sent] == [fits, fits]
        for mid, _ in broker.sent:
            broker.on_acked(mid, 0)
        await publisher.mark()
        assert await store.query("select outbox_no, reason from dead_letters") == [(2, "0x95")]
        assert await marked(store) == 3
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_a_broker_that_takes_less_than_before_is_not_sent_it_again(tmp_path: Path) -> None:
    """Restarted with a smaller limit while messages are in flight."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 3)
        await store.write([(_ROW, [4, _TOPIC, b'"%s"' % (b"x" * 300)])])
        broker = ScriptedBroker()
        uplink = uplink_to(await broker.start())
        publisher = Publisher(
            await outbox_of(store), uplink, asyncio.Event(), log,
            in_flight=50, mark_s=60, bury=bury_in(store), batch=ALONE,
        )  # fmt: skip
        uplink.start()
        task = asyncio.ensure_future(publisher.run())
        await until(lambda: len(broker.outstanding) == 4)
        broker.packet_limit, broker.acks_by_itself = 200, True
        broker.drop()
        await until(lambda: publisher.delivered == 3)
        assert [payload for _, _, payload in broker.lives[1]] == [b"1", b"2", b"3"]
        await publisher.mark()
        assert await store.query("select outbox_no, reason from dead_letters") == [(4, "0x95")]
        assert await marked(store) == 4
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await uplink.stop(0.1)
        await store.close()
        broker.stop()

    asyncio.run(story())


class MeasuringBroker(AnsweringBroker):
    """Notes how long the packets are."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[int] = []

    def publish(self, topic: str, payload: bytes) -> int:
        self.packets.append(packet_bytes(topic, payload))
        return super().publish(topic, payload)


def test_a_replay_sends_nothing_that_the_broker_cannot_take(tmp_path: Path) -> None:
    """Batches are as long as it allows; a row that alone is too long counts as refused."""

    async def story() -> None:
        broker = MeasuringBroker()
        bench = await Bench.open(tmp_path / "g.sqlite", broker)
        await bench.parts.stream()
        for seq in range(1, 61):
            bench.parts.ingest.advert(heard(seq))
        bench.parts.ledger.add_alarm("gateway", {"what": "x" * 5000})
        await bench.parts.ingest.commit()
        await bench.idle()
        broker.maximum_packet_bytes = 4000
        broker.packets.clear()
        await bench.ask(request("r", 1, 61))
        (result,) = await bench.results(1)
        await bench.idle()
        assert (result["published"], result["refused"]) == (60, 1)
        assert max(broker.packets) <= 4000
        batches = [one for one in broker.sent if isinstance(one, list)]
        assert sum(len(one) for one in batches if "replayed" in one[0]) == 60
        await bench.close()

    asyncio.run(asyncio.wait_for(story(), 40))
