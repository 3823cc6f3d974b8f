"""A broker that answers pings and owes a PUBACK: no id is used twice, and it is asked again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kerb_gateway.flights import AHEAD_MESSAGES, Flights
from kerb_gateway.publisher import Publisher, Refused
from mqtt_parts import ScriptedBroker as BrokerOnTheWire
from parts import log
from test_publisher import ALONE, ScriptedBroker, bury_in, marked, outbox_of, store_with
from test_traps_paho import until, uplink_to

PAYLOAD_INVALID = 0x99


class OwingBroker(ScriptedBroker):
    """Acknowledges each message but the first."""

    def publish(self, topic: str, payload: bytes) -> int:
        mid = super().publish(topic, payload)
        if mid > 1:
            asyncio.get_running_loop().call_soon(self.on_acked, mid, 0)
        return mid


def test_no_more_are_sent_than_there_are_ids(tmp_path: Path) -> None:
    """Else the owed PUBACK, coming at last, ends rows that the broker does not have."""
    count = AHEAD_MESSAGES + 1000

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", count)
        broker = OwingBroker()
        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), log,
            in_flight=50, mark_s=60, bury=bury_in(store), batch=ALONE,
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        async with asyncio.timeout(30):
            while len(broker.sent) < AHEAD_MESSAGES:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(broker.sent) == AHEAD_MESSAGES
        broker.on_acked(1, 0)
        async with asyncio.timeout(30):
            while publisher.delivered < count:
                await asyncio.sleep(0.01)
        await publisher.mark()
        assert await marked(store) == count
        assert broker.renewed == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_an_owed_puback_is_asked_for_by_a_new_connection(tmp_path: Path) -> None:
    """With paho over a socket: MQTT sends again on a new connection, and there only."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 20)
        broker = BrokerOnTheWire()
        broker.acks_by_itself, broker.owes = True, b"3"
        uplink = uplink_to(await broker.start())
        publisher = Publisher(
            await outbox_of(store), uplink, asyncio.Event(), log,
            in_flight=5, mark_s=60, bury=bury_in(store), batch=ALONE, flights=Flights(0.5),
        )  # fmt: skip
        uplink.start()
        task = asyncio.ensure_future(publisher.run())
        await until(lambda: publisher.delivered == 19)
        owed = [one for one in broker.lives[0] if one[2] == broker.owes]
        await until(lambda: publisher.delivered == 20)
        assert broker.lives[1:] == [owed]  # once more, under its own id, and nothing else
        await publisher.mark()
        assert await marked(store) == 20
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await uplink.stop(0.1)
        broker.stop()
        await store.close()

    asyncio.run(story())


class RefusingBroker(ScriptedBroker):
    """Owes the first PUBACK and refuses the second message for good."""

    def publish(self, topic: str, payload: bytes) -> int:
        mid = super().publish(topic, payload)
        if mid == 2:
            asyncio.get_running_loop().call_soon(self.on_acked, mid, PAYLOAD_INVALID)
        return mid


def test_it_is_asked_for_while_a_full_disk_holds_up_what_was_refused(tmp_path: Path) -> None:
    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 2)
        broker, full = RefusingBroker(), asyncio.Event()

        async def wait_for_room(refused: Refused) -> None:
            full.set()
            await asyncio.Event().wait()

        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), log,
            in_flight=5, mark_s=60, bury=wait_for_room, batch=ALONE, flights=Flights(2.5),
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        await asyncio.wait_for(full.wait(), 20)
        assert broker.renewed == 0
        await until(lambda: broker.renewed == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_what_the_broker_cannot_keep_is_not_sent() -> None:
    """A broker hangs up on it, and then again each time that it is said anew."""

    async def story() -> None:
        broker = BrokerOnTheWire()
        broker.packet_limit, broker.acks_by_itself = 100, True
        uplink = uplink_to(await broker.start())
        uplink.start()
        await asyncio.wait_for(uplink.connected.wait(), 20)
        topic = "a/topic"
        # 1 kind, 1 length, 2 + 7 topic, 2 id, 1 + 5 properties: 81 bytes are left.
        uplink.retain(topic, bytes(82), 60)
        uplink.retain(topic, bytes(81), 60)
        await until(lambda: broker.lives[0])
        assert [len(packet) for _, _, packet in broker.lives[0]] == [81]
        await uplink.stop(0.1)
        broker.stop()

    asyncio.run(story())


def test_only_a_connection_that_stands_owes_anything() -> None:
    flights = Flights(600)
    flights.add(7, [])
    assert flights.overdue(0, connected=True) is None
    assert flights.overdue(599, connected=True) is None
    assert flights.overdue(600, connected=False) is None
    assert flights.overdue(700, connected=True) is None  # from here on it counts anew
    assert flights.overdue(1299, connected=True) is None
    assert flights.overdue(1300, connected=True) is flights.oldest
    assert flights.overdue(1301, connected=True) is None  # the new connection has its time, too
    flights.add(8, [])
    flights.pop(7)
    assert flights.overdue(1900, connected=True) is None  # another message


def test_an_id_whose_puback_is_owed_is_nobody_elses(tmp_path: Path) -> None:
    """Of a replayed message, which no row waits for: its PUBACK would end a row never sent."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 5)
        broker = BrokerOnTheWire()
        broker.acks_by_itself, broker.owes = True, b"replayed"
        uplink = uplink_to(await broker.start())
        publisher = Publisher(
            await outbox_of(store), uplink, asyncio.Event(), log,
            in_flight=50, mark_s=60, bury=bury_in(store), batch=ALONE,
        )  # fmt: skip
        uplink.start()
        await until(uplink.connected.is_set)
        owed = uplink.publish("replayed", b"replayed")
        uplink._client._last_mid = owed - 1  # it comes round: stands for 65,534 messages
        task = asyncio.ensure_future(publisher.run())
        await until(lambda: publisher.delivered == 5)
        rows = [payload for _, _, payload in broker.lives[0] if payload != broker.owes]
        assert sorted(rows) == [b"1", b"2", b"3", b"4", b"5"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await uplink.stop(0.1)
        broker.stop()
        await store.close()

    asyncio.run(story())
