"""The outbox ends only on PUBACK: with a scripted broker, and with a real one that is killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from kerb_gateway.burial import Burial
from kerb_gateway.publisher import Batch, Publisher, Refused
from kerb_gateway.store.database import Store
from kerb_gateway.store.outbox import MARK_ROWS, Outbox, dead_letter
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.refusals import DELIVERED, PUBACK, REFUSED, Hold, Patience, verdict
from kerb_sim.broker import Broker, find_mosquitto
from parts import TOPICS, Parts, heard, log
from streets import need

ALONE = Batch(TOPICS.batch, 1)


class ScriptedBroker:
    """Takes messages and acknowledges those that the test names."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.receive_maximum = 65535
        self.maximum_packet_bytes = 268_435_455
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self.sent: list[tuple[int, bytes]] = []
        self.topics: list[str] = []
        self.renewed = 0
        self._mids = itertools.count(1)

    def publish(self, topic: str, payload: bytes) -> int:
        mid = next(self._mids)
        self.sent.append((mid, payload))
        self.topics.append(topic)
        return mid

    def renew(self) -> None:
        self.renewed += 1


async def store_with(path: Path, count: int) -> Store:
    store = Store(path)
    await store.open()
    await store.write(
        [
            (
                "insert into outbox (outbox_no, kind, topic, payload) values (?,'message',?,?)",
                [n, TOPICS.of("aa", "reading"), b"%d" % n],
            )
            for n in range(1, count + 1)
        ]
    )
    return store


async def outbox_of(store: Store) -> Outbox:
    outbox = Outbox(store, NativePayloads(TOPICS, store.gw_epoch))
    await outbox.load()
    return outbox


def bury_in(store: Store) -> Callable[[Refused], Awaitable[None]]:
    async def bury(refused: Refused) -> None:
        await store.write([dead_letter(*one) for one in refused])

    return bury


async def publisher_of(store: Store, broker: ScriptedBroker, *, in_flight: int) -> Publisher:
    """Return a publisher whose messages go one by one, not yet running."""
    return Publisher(
        await outbox_of(store), broker, asyncio.Event(), log,
        in_flight=in_flight, mark_s=60, bury=bury_in(store), batch=ALONE,
    )  # fmt: skip


async def marked(store: Store) -> int:
    """Return how far the outbox is done, as a gateway that starts now would know it."""
    return (await outbox_of(store)).done


def test_rows_end_only_on_puback_and_the_window_holds(tmp_path: Path) -> None:
    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 12)
        broker = ScriptedBroker()
        publisher = await publisher_of(store, broker, in_flight=5)
        task = asyncio.ensure_future(publisher.run())
        await asyncio.sleep(0.3)
        assert [payload for _, payload in broker.sent] == [b"1", b"2", b"3", b"4", b"5"]
        await publisher.mark()
        assert await marked(store) == 0
        broker.on_acked(2, 0)
        broker.on_acked(3, 0x10)  # delivered, though nobody listens
        broker.on_acked(4, 0x87)  # not authorised: refused for good
        await asyncio.sleep(0.3)
        await publisher.mark()
        assert await marked(store) == 0  # the first is still with the broker
        assert len(broker.sent) == 8
        broker.on_acked(1, 0)
        broker.on_acked(6, 0)
        await publisher.mark()
        assert await marked(store) == 4
        await publisher.mark()
        dead = await store.query("select outbox_no, reason from dead_letters")
        assert dead == [(4, "0x87")]
        assert publisher.unheard == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


async def reached(broker: ScriptedBroker, count: int) -> None:
    """Wait until that many messages were sent."""
    async with asyncio.timeout(10):
        while len(broker.sent) < count:
            await asyncio.sleep(0.01)


def test_what_is_in_flight_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    """Large messages to a slow broker: memory is bounded, a PUBACK lets the next one go."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 0)
        row = "insert into outbox (outbox_no, kind, topic, payload) values (?,'message',?,?)"
        big = b'{"what":"' + b"x" * 60_000 + b'"}'
        await store.write([(row, [n, TOPICS.of("aa", "event"), big]) for n in range(1, 61)])
        broker = ScriptedBroker()
        publisher = await publisher_of(store, broker, in_flight=100)
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, 17)
        await asyncio.sleep(0.2)
        assert len(broker.sent) == 17  # the first that reach a megabyte
        for number in range(1, 44):
            broker.on_acked(number, 0)
            await reached(broker, 17 + number)
            assert len(broker.sent) == 17 + number
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_a_refusal_of_the_moment_is_borne_with_pauses_and_an_end(tmp_path: Path) -> None:
    """0x97 stops everything but one question at a time; 0x80 puts off one message, some times."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 8)
        broker = ScriptedBroker()
        said: list[str] = []
        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), lambda event, **_: said.append(event),
            in_flight=5, mark_s=60, bury=bury_in(store), batch=ALONE,
            patience=Patience(first_s=0.05, last_s=0.2, tries=3),
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, 5)
        for mid in range(1, 6):
            broker.on_acked(mid, 0x97)  # all that was in flight: one pause, not five
        assert said.count("broker has no room") == 1
        for round_no in range(3):
            await reached(broker, 6 + round_no)
            assert broker.sent[-1][1] == b"1"  # the oldest asks, alone
            await asyncio.sleep(0.02)
            assert len(broker.sent) == 6 + round_no
            broker.on_acked(broker.sent[-1][0], 0x97)
        await reached(broker, 9)
        broker.on_acked(broker.sent[-1][0], 0)  # room again
        await reached(broker, 14)
        assert [payload for _, payload in broker.sent[9:]] == [b"2", b"3", b"4", b"5", b"6"]
        tries = 0
        answered = 9
        while tries < 3:
            await reached(broker, answered + 1)
            mid, payload = broker.sent[answered]
            answered += 1
            tries += payload == b"3"
            broker.on_acked(mid, 0x80 if payload == b"3" else 0)
        await publisher.mark()
        assert await store.query("select outbox_no, reason from dead_letters") == [(3, "0x80")]
        assert await marked(store) == 8  # the others did not wait for it
        assert [payload for _, payload in broker.sent].count(b"3") == 1 + 3
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_room_that_a_replay_uses_is_not_used_twice(tmp_path: Path) -> None:
    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 8)
        broker = ScriptedBroker()
        broker.receive_maximum = 3
        publisher = await publisher_of(store, broker, in_flight=5)
        publisher.lent = 1
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, 2)
        await asyncio.sleep(0.1)
        assert len(broker.sent) == 2
        publisher.lent = 0
        broker.on_acked(broker.sent[0][0], 0)
        await reached(broker, 4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_a_stop_that_meets_a_commit_is_not_forgotten(tmp_path: Path) -> None:
    """wait_for of Python 3.11 swallows a cancel that comes with the event; 3.12 does not."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 0)
        committed = asyncio.Event()
        publisher = Publisher(
            await outbox_of(store),
            ScriptedBroker(),
            committed,
            log,
            in_flight=5,
            mark_s=60,
            bury=bury_in(store),
            batch=ALONE,
        )
        task = asyncio.ensure_future(publisher.run())
        await asyncio.sleep(0.2)
        committed.set()
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("reason", [0x80, 0x97])  # tried again by itself; held up with all
def test_what_comes_back_wakes_who_waits_for_a_commit(tmp_path: Path, reason: int) -> None:
    """Nothing else is to be sent, and no commit comes: it must not wait for one."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 3)
        broker = ScriptedBroker()
        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), log, in_flight=5, mark_s=60,
            bury=bury_in(store), batch=ALONE, patience=Patience(first_s=0.05, last_s=0.05),
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, 3)
        await asyncio.sleep(0.2)  # it has looked for more, and waits
        broker.on_acked(1, 0)
        broker.on_acked(3, 0)
        broker.on_acked(2, reason)
        async with asyncio.timeout(4):
            await reached(broker, 4)
        assert broker.sent[3][1] == broker.sent[1][1]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_a_mark_that_is_far_behind_is_stored_long_before_its_time(tmp_path: Path) -> None:
    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", MARK_ROWS)
        broker = ScriptedBroker()
        publisher = await publisher_of(store, broker, in_flight=MARK_ROWS)
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, MARK_ROWS)
        for mid, _ in broker.sent:
            broker.on_acked(mid, 0)
        async with asyncio.timeout(4):
            while await marked(store) < MARK_ROWS:
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


def test_pauses_grow_and_end() -> None:
    hold = Hold(Patience(first_s=1, last_s=60))
    now_s, pauses = 100.0, []
    for _ in range(9):
        assert hold.refused(now_s)
        assert not hold.refused(now_s + 0.5)  # came back from before the pause
        pauses.append(hold.left_s(now_s))
        now_s += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    hold.accepted()
    assert not hold.probing


def test_the_documented_reason_codes_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/mqtt-topics.md").read_text()
    rows = re.findall(r"^\| `(0x[0-9A-F]{2})` \| ([^|]+) \| (\w+) \|", text, re.M)
    assert {(int(code, 16), name, what) for code, name, what in rows} == {
        (code, name, what) for code, (name, what) in PUBACK.items()
    }
    assert verdict(0x9F) == REFUSED
    assert verdict(0x11) == DELIVERED


def numbers(payload: bytes) -> list[int]:
    """Return the sequence numbers of a message: one reading's, or a batch's."""
    table = json.loads(payload)
    return [one["seq"] for one in table] if isinstance(table, list) else [table["seq"]]


def test_a_backlog_travels_together_and_a_refused_batch_alone(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in range(1, 301):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        outbox, broker = parts.ledger.outbox, ScriptedBroker()
        broker.maximum_packet_bytes = 512 + 5000  # about ten readings

        bury = Burial(parts.ledger, parts.ingest.commit).bury
        publisher = Publisher(
            outbox, broker, parts.ingest.committed, log,
            in_flight=4, mark_s=60, bury=bury, batch=Batch(TOPICS.batch, 64),
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        await asyncio.sleep(0.2)
        assert set(broker.topics) == {TOPICS.batch}
        assert all(len(payload) <= 5000 for _, payload in broker.sent)
        first = numbers(broker.sent[0][1])
        assert len(first) > 5
        assert numbers(broker.sent[1][1])[0] == first[-1] + 1
        broker.on_acked(1, 0x99)  # payload format invalid: which of them is meant?
        arrived, refused, answered = set(), set(), 1
        while len(arrived) + len(refused) < 300:
            await asyncio.sleep(0.01)
            for mid, payload in broker.sent[answered:]:
                answered += 1
                seqs = numbers(payload) if b'"reason"' not in payload else []
                if seqs == [3]:
                    refused.add(3)
                    broker.on_acked(mid, 0x99)
                else:
                    arrived |= set(seqs)
                    broker.on_acked(mid, 0)
        assert refused == {3}
        assert arrived == set(range(1, 301)) - {3}
        await asyncio.sleep(0.6)
        for mid, _ in broker.sent[answered:]:
            broker.on_acked(mid, 0)
        await publisher.mark()
        dead = await parts.column("select json_extract(payload, '$.seq') from dead_letters")
        assert dead == [3]
        losses = [p for p in await parts.payloads() if p["kind"] == "loss"]
        assert [(p["first_seq"], p["reason"]) for p in losses] == [(3, "refused")]
        assert await outbox.waiting() == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await parts.store.close()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_every_row_arrives_though_the_broker_is_killed(tmp_path: Path) -> None:
    """Real paho, real mosquitto, SIGKILL in the middle: at least once, nothing missing."""
    need("mosquitto", find_mosquitto())
    count = 3000

    async def story() -> set[int]:
        from kerb_gateway.uplink.mqtt import Uplink

        broker = Broker(tmp_path / "broker")
        await broker.start()
        file = tmp_path / "subscriber.jsonl"
        subscriber = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kerb_check.subscriber", "--port", str(broker.port),
            "--file", str(file), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert subscriber.stdout is not None
        assert await asyncio.wait_for(subscriber.stdout.readline(), 15) == b"ready\n"
        store = await store_with(tmp_path / "g.sqlite", count)
        uplink = Uplink(
            host="127.0.0.1", port=broker.port, client_id="test", username=None, password=None,
            availability=TOPICS.availability, commands=TOPICS.commands, keepalive_s=5,
            protocol="auto", log=log, reconnect_last_s=1,
        )  # fmt: skip
        outbox = await outbox_of(store)
        publisher = Publisher(
            outbox,
            uplink,
            asyncio.Event(),
            log,
            in_flight=50,
            mark_s=60,
            bury=bury_in(store),
            batch=ALONE,
        )
        uplink.start()
        task = asyncio.ensure_future(publisher.run())
        while publisher.delivered < count // 3:
            await asyncio.sleep(0.005)
        await broker.stop(kill=True)
        await asyncio.sleep(0.3)
        await broker.start()
        async with asyncio.timeout(60):
            while await outbox.waiting():
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await uplink.stop(1)
        await store.close()
        subscriber.terminate()
        await subscriber.wait()
        await broker.stop()
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return {row["payload"] for row in rows if row.get("topic", "").endswith("reading")}

    arrived = asyncio.run(story())
    # A PUBACK is the broker's word, and mosquitto saves after it: what it acknowledged in its
    # last moments before a SIGKILL may be gone (docs/operations.md, "The broker's word").
    assert len(arrived) >= count - 100
    assert arrived <= set(range(1, count + 1))
