"""Gateways of a group on a real broker: one owner, a takeover, commands with one result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kerb_gateway.app import Gateway
from kerb_gateway.backfill import Backfill
from kerb_gateway.commands import Commands
from kerb_gateway.group import Group, Terms
from kerb_gateway.groupcommands import GroupCommands
from kerb_gateway.leases import ELSEWHERE, GATEWAYS_MAX, HERE, NOBODY
from kerb_gateway.model import RECENT_DIGESTS, Heard, Node
from kerb_gateway.peers import GENERATION_MAX, Claims, Progress, pack_claims, pack_progress
from kerb_gateway.store import leases as generations
from kerb_gateway.tails import Tails
from kerb_gateway.uplink.mqtt import Uplink
from kerb_gateway.uplink.topics import Topics
from kerb_sim.broker import Broker, find_mosquitto
from parts import KEY, LAMP_ID, NODE_ID, HandClock, Parts, heard, log
from streets import need

LEASE_S = 1.0
BIN_COMMAND = f"kerb/v1/north/group/{NODE_ID}/cmd"
LAMP_COMMAND = f"kerb/v1/north/group/{LAMP_ID}/cmd"


class Machine:
    """A gateway's group, uplink and database; no radio: `heard` is called by the test."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path, self.name = directory / f"{name}.sqlite", name

    async def start(self, port: int) -> Machine:
        self.parts = await Parts.open(self.path)
        topics = Topics("north", self.name, grouped=True)
        self.uplink = Uplink(
            host="127.0.0.1",
            port=port,
            client_id=f"kerb-{self.name}",
            availability=topics.availability,
            commands=topics.commands,
            username=None,
            password=None,
            keepalive_s=5,
            protocol="auto",
            log=log,
        )
        self.group = Group(
            Terms(LEASE_S, 60, False),
            self.name,
            self.parts.nodes,
            await generations.load(self.parts.store),
            store=self.parts.store,
            ledger=self.parts.ledger,
            ingest=self.parts.ingest,
            broker=self.uplink,
            topics=topics,
            clock=self.parts.clock,
            log=log,
        )
        self.uplink.watched = topics.of_group()
        self.uplink.is_watched = lambda topic: not topics.is_command(topic)
        self.uplink.on_watched = self.group.take
        self.uplink.on_connection = self.group.connection
        self.uplink.start()
        self.task = asyncio.ensure_future(self.group.run())
        return self

    async def stop(self) -> None:
        """End without a word, as a kill does, but for the database's own close."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.uplink._client.loop_stop()
        await self.parts.store.close()


async def until(ready: Callable[[], bool], hearing: list[Machine]) -> None:
    async with asyncio.timeout(15):
        while not ready():
            for machine in hearing:
                machine.group.heard(NODE_ID, -60)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def broker_in(directory: Path) -> AsyncIterator[Broker]:
    need("mosquitto", find_mosquitto())
    broker = Broker(directory)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def test_one_owner_a_takeover_and_a_return(tmp_path: Path) -> None:
    async def story() -> None:
        async with broker_in(tmp_path) as broker:
            first = await Machine(tmp_path, "gw1").start(broker.port)
            await until(lambda: first.group.owned(NODE_ID), [first])
            assert not first.group.owned(LAMP_ID)  # on a bus: no lease
            second = await Machine(tmp_path, "gw2").start(broker.port)
            await until(lambda: second.group.place(NODE_ID) == ELSEWHERE, [first, second])
            assert first.group.place(NODE_ID) == HERE
            await first.stop()
            await until(lambda: second.group.owned(NODE_ID), [second])
            assert not first.group.owned(NODE_ID)
            again = await Machine(tmp_path, "gw1").start(broker.port)
            assert again.group._leases.generation(NODE_ID) == 1  # kept over the restart
            await until(lambda: again.group.place(NODE_ID) == ELSEWHERE, [again, second])
            assert second.group.owned(NODE_ID)
            second.task.cancel()
            second.group.leave()  # a clean end: the other need not wait for the lease
            assert not second.group.owned(NODE_ID)
            await until(lambda: again.group.owned(NODE_ID), [again])
            assert (await generations.load(again.parts.store))[NODE_ID] == 3
            await again.stop()
            await second.stop()

    asyncio.run(story())


def test_progress_reaches_the_others_and_names_only_what_is_delivered(tmp_path: Path) -> None:
    async def story() -> None:
        async with broker_in(tmp_path) as broker:
            owner = await Machine(tmp_path, "gw1").start(broker.port)
            other = await Machine(tmp_path, "gw2").start(broker.port)
            await owner.parts.stream()
            assert owner.parts.ingest.advert(heard(1)).kind == "accepted"
            await until(lambda: owner.group.owned(NODE_ID), [owner])

            def told() -> tuple[int, int]:
                one = other.parts.ingest.elsewhere._told.newest(NODE_ID)
                return (0, 0) if one is None else (one.last_seq, one.delivered_seq)

            await until(lambda: told() != (0, 0), [owner])
            assert told() == (1, 0)
            await owner.parts.ingest.commit()
            for row in await owner.parts.ledger.outbox.after(0, 10):
                owner.parts.ledger.outbox.ended(row.outbox_no)
            await until(lambda: told() == (1, 1), [owner])
            assert other.parts.ingest.advert(heard(2)).kind == "accepted"
            await owner.stop()
            await other.stop()

    asyncio.run(story())


def test_an_old_epoch_that_is_delivered_late_is_closed_at_the_others_too(tmp_path: Path) -> None:
    """The node has a new epoch before the owner's outbox has ended the old one's rows."""

    async def story() -> None:
        async with broker_in(tmp_path) as broker:
            owner = await Machine(tmp_path, "gw1").start(broker.port)
            other = await Machine(tmp_path, "gw2").start(broker.port)
            await owner.parts.stream()
            old = await other.parts.stream()
            assert owner.parts.ingest.advert(heard(1)).kind == "accepted"
            assert other.parts.ingest.advert(heard(2)).kind == "accepted"
            assert old.ranges() == ((1, 1),)
            await owner.parts.ingest.epoch(owner.parts.nodes[0], 5, 0)
            await owner.parts.ingest.commit()
            newest = other.parts.ingest.elsewhere._told.newest
            await until(lambda: getattr(newest(NODE_ID), "epoch", 0) == 5, [owner])
            assert old.ranges() == ((1, 1),)
            for row in await owner.parts.ledger.outbox.after(0, 10):
                owner.parts.ledger.outbox.ended(row.outbox_no)
            await until(lambda: old.ranges() == (), [owner])
            await owner.stop()
            await other.stop()

    asyncio.run(story())


@dataclass
class Silent:
    """A broker that takes everything and answers nothing."""

    acked: list[Any] = field(default_factory=list)

    def retain(self, topic: str, payload: bytes, expiry_s: int | None = None) -> None:
        pass

    def ack(self, incoming: Any) -> None:
        self.acked.append(incoming)


@dataclass
class Message:
    """What the uplink hands over."""

    topic: str
    payload: bytes = b'{"command_id": "c", "level_pct": 1, "hold_s": 1, "ttl_s": 1}'
    retained: bool = False


def group_of(
    parts: Parts, broker: Silent, nodes: list[Node] | None = None, log: Any = log
) -> Group:
    return Group(
        Terms(LEASE_S, 60, False), "gw1", nodes or parts.nodes, {}, store=parts.store,
        ledger=parts.ledger, ingest=parts.ingest, broker=broker,
        topics=Topics("north", "gw1", grouped=True), clock=parts.clock, log=log,
    )  # fmt: skip


def test_what_is_malformed_is_counted_and_acknowledged(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        silent = Silent()
        group = group_of(parts, silent)
        for topic in ("gw2/owned", f"gw2/{NODE_ID}/progress", "gw2/other", "x"):
            group.take(Message(f"kerb/v1/north/{topic}", b"{"))
        assert len(silent.acked) == 4
        assert parts.ledger.counters["group message malformed"] == 2
        await parts.store.close()

    asyncio.run(story())


def test_words_on_what_is_not_shared_here_are_counted_and_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        said: list[str] = []
        group = group_of(parts, Silent(), log=lambda event, **fields: said.append(event))
        for node in (NODE_ID, LAMP_ID, "x", "y"):
            payload = pack_progress(Progress(node, GENERATION_MAX, 5, 9, 9))
            group.take(Message(f"kerb/v1/north/gw2/{node}/progress", payload))
        assert list(parts.ingest.elsewhere._told._newest) == [NODE_ID]
        assert parts.ledger.counters["progress of a node that is not shared here"] == 3
        for _ in range(2):
            group._note_changes()
        assert said == ["node can be claimed no more"]
        for number in range(GATEWAYS_MAX + 2):
            payload = pack_claims(Claims("run", 1, 60_000, {NODE_ID: 1}))
            group.take(Message(f"kerb/v1/north/x{number}/owned", payload))
        assert parts.ledger.counters["claims of too many gateways"] == 2
        await parts.store.close()

    asyncio.run(story())


def test_what_no_lease_concerns_has_its_tail_and_is_not_claimed(tmp_path: Path) -> None:
    """A lamp and a Wi-Fi node fall silent in a group, and a BLE node that nobody ever owned."""

    async def story() -> None:
        clock = HandClock()
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        ble, lamp = parts.nodes
        wifi_id = "a4cf12000003"
        insert = "insert into nodes (node_id, role) values (?,'bin')"
        await parts.store.write([(insert, [wifi_id])])
        wifi = Node(3, wifi_id, "bin", KEY, wifi=True)
        group = group_of(parts, Silent(), [ble, lamp, wifi])
        tails = Tails(
            parts.store, parts.ledger, parts.ingest.commit, clock, log, [ble, lamp, wifi],
            silent_after_s=100, ours=group.speaks_for,
        )  # fmt: skip
        await tails.begin()
        for node in (ble, lamp, wifi):
            await parts.ingest.epoch(node, 5, 3)
        group.connection(True, False)
        clock.boottime_s += 100
        for node in (lamp, wifi):
            group.heard(node.node_id, -40)  # who forges an advert of it makes nobody claim it
        await tails.look()
        said = {one["node"] for one in await parts.payloads() if one["kind"] == "loss"}
        assert said == {NODE_ID, LAMP_ID, wifi_id}
        assert group._leases.tick(clock.boottime_ms()) is None
        assert [node for node in (ble, lamp, wifi) if group.owned(node.node_id)] == []
        assert (group.place(NODE_ID), group.place(wifi_id)) == (NOBODY, HERE)
        assert list(group._streams()) == [NODE_ID]
        await parts.store.close()

    asyncio.run(story())


class Echo(Silent):
    """A broker that gives back what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Message] = []

    def retain(self, topic: str, payload: bytes, expiry_s: int | None = None) -> None:
        self.said.append(Message(topic, payload))


def test_the_last_owner_says_that_a_node_is_silent_though_it_has_let_it_go(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        clock, broker = HandClock(), Echo()
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        stream = await parts.stream(3)
        group = group_of(parts, broker)
        tails = Tails(
            parts.store, parts.ledger, parts.ingest.commit, clock, log, parts.nodes,
            silent_after_s=100 * LEASE_S, ours=group.speaks_for,
        )  # fmt: skip
        await tails.begin()
        group.connection(True, False)
        group.heard(NODE_ID, -40)
        owned = []
        while tails.silent_s(stream) < 100 * LEASE_S:
            clock.boottime_s += LEASE_S / 4
            await group._claim(group._leases.tick(clock.boottime_ms()))
            while broker.said:
                group.take(broker.said.pop(0))
            owned.append(group.owned(NODE_ID))
        assert any(owned)
        assert not owned[-1]  # unheard for so long: whoever hears it now may have it
        await tails.look()
        assert stream.tail_no is not None
        claims = Claims(
            "23ed9374f0fe",
            1,
            round(LEASE_S * 1000),
            {NODE_ID: group._leases.generation(NODE_ID) + 1},
        )
        group.take(Message("kerb/v1/north/gw2/owned", pack_claims(claims)))
        assert not group.speaks_for(NODE_ID)
        clock.boottime_s += 100 * LEASE_S
        assert not group.speaks_for(NODE_ID)  # the other was its last owner
        await parts.store.close()

    asyncio.run(story())


def test_a_recording_makes_nobody_claim_a_node(tmp_path: Path) -> None:
    async def story() -> None:
        clock = HandClock()
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        await parts.stream()
        for seq in range(1, RECENT_DIGESTS + 2):
            parts.ingest.advert(heard(seq))
        group = group_of(parts, Silent())
        group.connection(True, False)
        link: Any = SimpleNamespace(queue=asyncio.Queue(), converse=None)
        backfill = Backfill(
            parts.ingest, clock, log, first_retry_s=1, last_retry_s=1, session_timeout_s=1,
            door_s=1, owned=group.owned,
        )  # fmt: skip
        core = SimpleNamespace(ingest=parts.ingest)
        gateway: Any = SimpleNamespace(core=core, group=group, backfill=backfill)
        nothing: Any = None
        hearing = asyncio.ensure_future(Gateway(nothing, nothing, nothing)._hear(link, gateway))

        async def claims(*adverts: Heard) -> Claims | None:
            for one in adverts:
                link.queue.put_nowait(one)
            while not link.queue.empty():
                await asyncio.sleep(0)
            said = None
            for _ in range(2):  # the second time it has left it to better antennas long enough
                clock.boottime_s += 2 * LEASE_S
                said = group._leases.tick(clock.boottime_ms())
            return said

        assert await claims(heard(1), heard(RECENT_DIGESTS + 1, distance_mm=5)) is None
        counters = parts.ledger.counters
        assert (counters["replay"], counters["tampered"]) == (1, 1)
        assert await claims(heard(1, epoch=5)) is not None  # a node with a new epoch is near
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await parts.store.close()

    asyncio.run(story())


def test_only_the_owner_connects(tmp_path: Path) -> None:
    """What is missing at the others stays a gap: not asked for, and not declared lost."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream(5)
        mine: set[str] = set()
        tried: list[int] = []
        ended: list[bool] = []

        @asynccontextmanager
        async def nobody(one: Heard) -> AsyncIterator[Any]:
            tried.append(1)
            raise TimeoutError
            yield

        backfill = Backfill(
            parts.ingest, parts.clock, log, first_retry_s=0.05, last_retry_s=1,
            session_timeout_s=5, door_s=0.1, owned=mine.__contains__,
            reached=lambda node_id, well: ended.append(well),
        )  # fmt: skip
        assert not backfill.consider(heard(7), parts.ingest.advert(heard(7)), nobody)
        assert stream.ranges() == ((1, 5), (6, 6))
        mine.add(NODE_ID)
        assert backfill.consider(heard(8), parts.ingest.advert(heard(8)), nobody)
        await asyncio.gather(*backfill._tasks)
        assert tried
        assert ended == [False]
        await parts.ingest.commit()
        assert await parts.column("select count(*) from losses") == [0]
        await parts.store.close()

    asyncio.run(story())


def test_who_loses_a_node_between_two_tries_calls_it_no_more(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream(5)
        mine = {NODE_ID}
        tried: list[int] = []

        @asynccontextmanager
        async def nobody(one: Heard) -> AsyncIterator[Any]:
            tried.append(1)
            mine.clear()
            raise TimeoutError
            yield

        backfill = Backfill(
            parts.ingest, parts.clock, log, first_retry_s=0.05, last_retry_s=1,
            session_timeout_s=5, door_s=60, owned=mine.__contains__,
        )  # fmt: skip
        assert backfill.consider(heard(7), parts.ingest.advert(heard(7)), nobody)
        await asyncio.gather(*backfill._tasks)
        assert len(tried) == 1
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("bus", "place", "mine"),
    [(True, NOBODY, True), (None, HERE, False), (False, HERE, True), (False, ELSEWHERE, False)],
)
def test_whose_a_command_is(bus: bool | None, place: str, mine: bool) -> None:
    counted: list[str] = []
    of_group = GroupCommands(lambda node: bus, lambda node: place, counted.append, log)
    assert of_group.is_mine(NODE_ID, Message(BIN_COMMAND), 100) is mine
    assert counted == ([] if mine else ["command of another gateway"])
    assert of_group.taken_up(1) == []


def test_a_command_waits_for_an_owner_who_knows_whether_its_life_is_over() -> None:
    counted: list[str] = []
    places = [NOBODY]
    of_group = GroupCommands(lambda node: False, lambda node: places[0], counted.append, log)
    kept, late = Message(BIN_COMMAND), Message(BIN_COMMAND)
    assert not of_group.is_mine(NODE_ID, kept, 100)
    assert not of_group.is_mine(NODE_ID, late, 50)
    assert of_group.taken_up(60) == []
    assert counted == []
    places[0] = HERE
    assert of_group.taken_up(61) == [(kept, False), (late, True)]
    assert of_group.taken_up(62) == []
    places[0] = NOBODY
    for _ in range(70):
        of_group.is_mine(NODE_ID, kept, 100)
    assert counted == ["command without an owner"] * 6  # a bound, and what is beyond it is counted
    places[0] = ELSEWHERE
    assert of_group.taken_up(63) == []


def test_a_command_to_the_group_has_one_result(tmp_path: Path) -> None:
    """Two gateways are given each command: one has the lamp's bus, the other owns the bin."""

    async def story() -> None:
        results: list[dict[str, Any]] = []
        for name, has_bus, place in (("gw1", True, ELSEWHERE), ("gw2", False, HERE)):
            parts = await Parts.open(tmp_path / f"{name}.sqlite")
            nodes = parts.nodes if has_bus else parts.nodes[:1]
            topics = Topics("north", name, grouped=True)
            commands = Commands(
                parts.store, parts.ledger, parts.ingest, parts.clock, topics, nodes, {}, log,
                retry_s=1, place=lambda node_id, place=place: place,
            )  # fmt: skip
            for topic in (LAMP_COMMAND, BIN_COMMAND):
                assert topics.is_command(topic)
                payload = json.dumps({"command_id": topic, "level_pct": 400}).encode()
                await commands._accept(Message(topic, payload))
            await parts.ingest.commit()
            results += [one | {"by": name} for one in await parts.payloads() if "result" in one]
            await parts.store.close()
        assert [(one["node"], one["by"], one["result"]) for one in results] == [
            (LAMP_ID, "gw1", "refused"),
            (NODE_ID, "gw2", "refused"),
        ]

    asyncio.run(story())


def test_what_nobody_owned_in_its_life_is_expired_by_the_next_owner(tmp_path: Path) -> None:
    """One result, from the gateway that comes to own the node; the other says nothing."""

    async def story() -> None:
        clock, places = HandClock(), {"gw1": NOBODY, "gw2": NOBODY}
        text = json.dumps({"command_id": "c", "level_pct": 4, "hold_s": 9, "ttl_s": 1}).encode()
        every = []
        for name in places:
            parts = await Parts.open(tmp_path / f"{name}.sqlite", clock)
            commands = Commands(
                parts.store, parts.ledger, parts.ingest, clock,
                Topics("north", name, grouped=True), parts.nodes, {}, log,
                retry_s=1, place=lambda node_id, name=name: places[name],
            )  # fmt: skip
            commands.take(Message(BIN_COMMAND, text), lambda _: None)
            every.append((parts, commands, asyncio.ensure_future(commands.run())))
        await asyncio.sleep(0.2)
        clock.boottime_s += 5
        await asyncio.sleep(0.2)
        places |= {"gw1": ELSEWHERE, "gw2": HERE}
        await asyncio.sleep(0.3)
        found = []
        for parts, _, task in every:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found.append([one["result"] for one in await parts.payloads() if "result" in one])
            await parts.store.close()
        assert found == [[], ["expired"]]

    asyncio.run(story())


def test_topics_of_a_gateway_that_is_alone_know_no_group() -> None:
    alone = Topics("north", "gw1")
    assert not alone.is_command(LAMP_COMMAND)
    assert alone.is_command(alone.of(LAMP_ID, "cmd"))
    assert not alone.is_command("kerb/v1/north/gw2/owned")
    assert Topics("north", "gw1", grouped=True).node_of(LAMP_COMMAND) == LAMP_ID
