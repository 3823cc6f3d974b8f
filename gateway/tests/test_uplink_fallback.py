"""MQTT 3.1.1 is tried before the first MQTT 5 connection only: later rows are in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kerb_gateway.publisher import Publisher
from mqtt_parts import CONNACK, CONNECT, ScriptedBroker, packet
from parts import TOPICS, log
from test_publisher import ALONE, bury_in, outbox_of, store_with
from test_traps_paho import until, uplink_to

_FIVE, _THREE = 5, 4  # the protocol's level in a CONNECT
_NOT_AUTHORIZED = 0x87


class MoodyBroker(ScriptedBroker):
    """Hangs up on the next `cuts` who say CONNECT, then refuses the next `refusals`."""

    def __init__(self, cuts: int = 0, refusals: int = 0) -> None:
        super().__init__()
        self.cuts, self.refusals = cuts, refusals
        self.levels: list[int] = []

    def _take(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        if first >> 4 == CONNECT:
            self.levels.append(body[6])
            if self.cuts:
                self.cuts -= 1
                writer.transport.abort()
                return
            if self.refusals:
                self.refusals -= 1
                writer.write(packet(CONNACK, bytes([0, _NOT_AUTHORIZED, 0])))
                writer.close()
                return
        super()._take(first, body, writer)


def test_who_never_answered_is_asked_with_the_older_protocol() -> None:
    async def story() -> None:
        broker = MoodyBroker(cuts=3)
        uplink = uplink_to(await broker.start(), "auto")
        uplink.start()
        await until(lambda: len(broker.levels) == 3)
        assert broker.levels == [_FIVE, _FIVE, _THREE]
        await uplink.stop(0.1)
        broker.stop()

    asyncio.run(story())


def test_who_refuses_a_password_in_mqtt_5_speaks_it() -> None:
    """Under 3.1.1 a broker says of what it forbids that it took it: a loss that nobody sees."""

    async def story() -> None:
        broker = MoodyBroker(refusals=3)
        uplink = uplink_to(await broker.start(), "auto")
        uplink.start()
        await until(uplink.connected.is_set)
        assert broker.levels == [_FIVE] * 4
        assert uplink.protocol == "5"
        await uplink.stop(0.1)
        broker.stop()

    asyncio.run(story())


def test_cut_handshakes_in_mid_life_leave_the_rows_in_flight_where_they_are(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        broker = MoodyBroker()
        uplink = uplink_to(await broker.start(), "auto")
        store = await store_with(tmp_path / "g.sqlite", 4)
        outbox = await outbox_of(store)
        publisher = Publisher(
            outbox, uplink, asyncio.Event(), log,
            in_flight=50, mark_s=60, bury=bury_in(store), batch=ALONE,
        )  # fmt: skip
        uplink.start()
        task = asyncio.ensure_future(publisher.run())
        await until(lambda: len(broker.outstanding) == 4)
        broker.cuts = 2
        broker.drop()
        await until(lambda: len(broker.levels) == 4)
        assert set(broker.levels) == {_FIVE}
        await until(lambda: len(broker.lives[1]) == 4)
        assert broker.lives[1] == broker.lives[0]
        assert publisher.delivered == 0
        for mid in list(broker.outstanding):
            broker.ack(mid)
        await until(lambda: publisher.delivered == 4)
        assert outbox.done == 4
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await uplink.stop(0.1)
        await store.close()
        broker.stop()

    asyncio.run(story())


def test_only_what_publish_sent_is_handed_on_as_acknowledged() -> None:
    """paho says on_publish of the availability too, which has no PUBACK, and of claims."""

    async def story() -> None:
        broker = ScriptedBroker()
        broker.acks_by_itself = True
        uplink = uplink_to(await broker.start())
        acked: list[tuple[int, int]] = []
        uplink.on_acked = lambda mid, reason: acked.append((mid, reason))
        uplink.start()
        await asyncio.wait_for(uplink.connected.wait(), 20)
        uplink.retain(TOPICS.of("gateway", "owned"), b"{}")
        mid = uplink.publish("row", b"1")
        await until(lambda: acked)
        assert acked == [(mid, 0)]
        await uplink.stop(1)
        broker.stop()

    asyncio.run(story())
