"""What only the owner of a node does: connect, claim, say that it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from groups import LEASE_S, Message, Silent, group_of
from kerb_gateway.app import Gateway
from kerb_gateway.backfill import Backfill
from kerb_gateway.leases import HERE, NOBODY
from kerb_gateway.model import RECENT_DIGESTS, Heard, Node
from kerb_gateway.peers import Claims, pack_claims
from kerb_gateway.tails import Tails
from parts import KEY, LAMP_ID, NODE_ID, HandClock, Parts, heard, log


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
