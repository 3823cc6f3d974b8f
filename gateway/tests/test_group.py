"""Gateways of a group on a real broker: one owner, a takeover, what each tells the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from groups import LEASE_S, Message, Silent, group_of
from kerb_gateway.group import Group, Terms
from kerb_gateway.leases import ELSEWHERE, GATEWAYS_MAX, HERE
from kerb_gateway.peers import GENERATION_MAX, Claims, Progress, pack_claims, pack_progress
from kerb_gateway.store import leases as generations
from kerb_gateway.uplink.mqtt import Uplink
from kerb_gateway.uplink.topics import Topics
from kerb_sim.broker import Broker, find_mosquitto
from parts import LAMP_ID, NODE_ID, Parts, heard, log
from streets import need


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
