"""Sessions against a node made of the very firmware code, over a byte stream in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kerb_gateway.backfill import Backfill
from kerb_gateway.crypto import new_ecb
from kerb_gateway.errors import LinkError
from kerb_gateway.model import Heard
from kerb_node.dialogue import Dialogue
from kerb_node.readinglog import ReadingLog
from kerb_wire.words import FLAG_CONNECTABLE, FLAG_SERVICE
from parts import EPOCH, KEY, NODE_ID, Parts, heard, log, record


class NodeInMemory:
    """The node's dialogue and reading log, joined to the gateway by two queues."""

    def __init__(self, directory: Path, parts: Parts, *, key: bytes = KEY) -> None:
        self.log = ReadingLog(str(directory), EPOCH, 4, 64)
        self.acked: list[int] = []
        self.committed_at_ack: list[int] = []
        self.parts = parts
        self.key = key
        self.last_seq = 0
        self.epoch = EPOCH
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    def store(self, seq: int) -> None:
        self.log.append(record(seq))
        self.last_seq = seq

    def _acknowledge(self, epoch: int, seq: int) -> None:
        self.acked.append(seq)
        self.committed_at_ack.append(self.parts.ingest.commits)

    @contextlib.asynccontextmanager
    async def converse(self, _: Heard) -> AsyncIterator[NodeInMemory]:
        self._dialogue = Dialogue(
            new_ecb, self.key, os.urandom, self._describe, self.log, self._acknowledge
        )
        yield self

    def _describe(self, nonce: bytes) -> tuple[object, ...]:
        return (1, 0, bytes.fromhex(NODE_ID), self.epoch, nonce, 1, 60, 1, self.last_seq, 0)

    async def send(self, frame: bytes) -> None:
        for answer in self._dialogue.feed(frame):
            self._answers.put_nowait(answer)

    async def receive(self, timeout_s: float) -> bytes:
        try:
            return await asyncio.wait_for(self._answers.get(), 0.2)
        except TimeoutError:
            raise LinkError("no answer") from None


def backfill_of(parts: Parts, door_s: float = 0.1, first_retry_s: float = 0.05) -> Backfill:
    return Backfill(
        parts.ingest,
        parts.clock,
        log,
        first_retry_s=first_retry_s,
        last_retry_s=max(1, first_retry_s),
        session_timeout_s=5,
        door_s=door_s,
    )


async def visit(backfill: Backfill, parts: Parts, node: NodeInMemory, seq: int) -> None:
    """Let an advert be heard and wait for the session that it starts."""
    one = heard(seq)
    assert backfill.consider(one, parts.ingest.advert(one), node.converse)
    await asyncio.gather(*backfill._tasks)


def test_gaps_are_fetched_and_acked_after_the_commit(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        for seq in (1, 2, 3, 5, 6, 300):
            node.store(seq)
        backfill = backfill_of(parts)
        await visit(backfill, parts, node, 300)
        assert sorted(await parts.column("select seq from readings")) == [1, 2, 3, 5, 6, 300]
        losses = [p for p in await parts.payloads() if p.get("kind") == "loss"]
        assert {p["reason"] for p in losses} == {"unused"}
        covered = {n for p in losses for n in range(p["first_seq"], p["last_seq"] + 1)}
        assert covered == {4} | set(range(7, 300))
        assert node.acked == [300]
        assert node.committed_at_ack[0] >= 1  # the COMMIT came first
        await parts.store.close()

    asyncio.run(story())


def test_a_node_with_another_key_is_not_believed(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts, key=bytes(16))
        node.store(1)
        backfill = backfill_of(parts)
        await visit(backfill, parts, node, 1)
        assert node.acked == []
        await parts.ingest.commit()
        assert await parts.column("select count(*) from readings") == [0]
        await parts.store.close()

    asyncio.run(story())


def test_a_silent_node_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        node.store(1)
        backfill = backfill_of(parts)

        @contextlib.asynccontextmanager
        async def nobody(_: Heard) -> AsyncIterator[NodeInMemory]:
            raise LinkError("no connection")
            yield node

        one = heard(1)
        outcome = parts.ingest.advert(one)
        assert backfill.consider(one, outcome, nobody)
        await asyncio.gather(*backfill._tasks)
        assert not backfill.consider(one, outcome, node.converse)
        await asyncio.sleep(0.1)
        assert backfill.consider(heard(1), outcome, node.converse)
        await asyncio.gather(*backfill._tasks)
        assert node.acked == [1]
        await parts.store.close()

    asyncio.run(story())


def unreachable(times: int, node: NodeInMemory) -> tuple[list[Heard], Any]:
    """Return (who was called on, a converse that fails `times` times and then reaches `node`)."""
    called: list[Heard] = []

    @contextlib.asynccontextmanager
    async def converse(one: Heard) -> AsyncIterator[NodeInMemory]:
        called.append(one)
        if len(called) <= times:
            raise LinkError("le-connection-abort-by-local")
        async with node.converse(one) as stream:
            yield stream

    return called, converse


@pytest.mark.parametrize(("door_s", "calls"), [(2.0, 3), (0.1, 1)])
def test_what_fails_is_tried_again_while_the_door_is_open(
    tmp_path: Path, door_s: float, calls: int
) -> None:
    """One advert is all that a gateway may get of a wake: repetitions can be kept from it."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        node.store(1)
        backfill = backfill_of(parts, door_s)
        called, converse = unreachable(2, node)
        one = heard(1)
        assert backfill.consider(one, parts.ingest.advert(one), converse)
        await asyncio.gather(*backfill._tasks)
        assert len(called) == calls
        assert node.acked == ([1] if calls == 3 else [])
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize("service", [True, False])
def test_a_node_in_service_is_called_on_without_a_second_advert(
    tmp_path: Path, service: bool
) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        node = NodeInMemory(tmp_path / "log", parts)
        for seq in (1, 2, 3):
            node.store(seq)
        backfill = backfill_of(parts)
        called, converse = unreachable(2, node)
        flags = FLAG_CONNECTABLE | (FLAG_SERVICE if service else 0)
        one = heard(3, flags=flags)
        assert backfill.consider(one, parts.ingest.advert(one), converse)
        await asyncio.gather(*backfill._tasks)
        assert len(called) == (3 if service else 1)
        assert node.acked == ([3] if service else [])
        await parts.store.close()

    asyncio.run(story())


def test_a_forgery_does_not_end_the_calls_on_a_node_in_service(tmp_path: Path) -> None:
    """A forged advert between two tries: the node's own is not said a second time."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        node = NodeInMemory(tmp_path / "log", parts)
        for seq in (1, 2, 3):
            node.store(seq)
        backfill = backfill_of(parts)
        called, converse = unreachable(2, node)
        one = heard(3, flags=FLAG_CONNECTABLE | FLAG_SERVICE)
        assert backfill.consider(one, parts.ingest.advert(one), converse)
        forged = heard(4, key=bytes(16))
        assert not backfill.consider(forged, parts.ingest.advert(forged), converse)
        await asyncio.gather(*backfill._tasks)
        assert len(called) == 3
        assert node.acked == [3]
        await parts.store.close()

    asyncio.run(story())


def test_every_node_that_was_heard_gets_its_turn(tmp_path: Path) -> None:
    """More doors than slots: nobody is forgotten, and what is said meanwhile counts."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        node.store(1)
        backfill = backfill_of(parts, 2.0)
        reached = asyncio.Event()

        @contextlib.asynccontextmanager
        async def slow(one: Heard) -> AsyncIterator[NodeInMemory]:
            reached.set()
            await asyncio.sleep(0.2)
            async with node.converse(one) as stream:
                yield stream

        async with backfill._slots, backfill._slots:  # both are taken by other nodes
            one = heard(1)
            assert backfill.consider(one, parts.ingest.advert(one), slow)
            await asyncio.sleep(0.1)
            assert not reached.is_set()
        await reached.wait()
        node.store(2)
        node.store(3)
        await parts.stream()
        late = heard(3)
        assert not backfill.consider(late, parts.ingest.advert(late), slow)
        await asyncio.gather(*backfill._tasks)
        assert node.acked[-1] == 3
        assert sorted(await parts.column("select seq from readings")) == [1, 2, 3]
        await parts.store.close()

    asyncio.run(story())


def test_gaps_of_an_epoch_that_has_ended_are_fetched_too(tmp_path: Path) -> None:
    """NVS was lost, the log was not: what the gateway lacks of the old epoch is still there."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        node.epoch = EPOCH - 1
        node.log = ReadingLog(str(tmp_path / "log"), node.epoch, 4, 64)
        for seq in (1, 2, 4):
            node.store(seq)
        old = await parts.ingest.epoch(parts.nodes[0], node.epoch, 4)
        assert old.ranges() == ((1, 4),)
        node.epoch = EPOCH
        node.log = ReadingLog(str(tmp_path / "log"), node.epoch, 4, 64)
        for seq in (1, 2):
            node.store(seq)
        await visit(backfill_of(parts), parts, node, 2)
        assert not old.gaps
        assert old.unexplained() == 0
        assert (old.stored, old.lost) == (3, 1)
        assert len(await parts.column("select seq from readings")) == 5
        assert node.acked == [2]
        await parts.store.close()

    asyncio.run(story())


def test_a_gap_of_an_ended_epoch_is_worth_a_visit(tmp_path: Path) -> None:
    """The session that began the new epoch broke off; nothing else calls for another one."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        old = await parts.ingest.epoch(parts.nodes[0], EPOCH - 1, 2)
        fresh = await parts.stream()
        node.store(1)
        await visit(backfill_of(parts), parts, node, 1)
        assert (old.gaps, fresh.gaps) == ([], [])
        await parts.ingest.commit()
        done = heard(2)
        assert not backfill_of(parts).consider(done, parts.ingest.advert(done), node.converse)
        await parts.store.close()

    asyncio.run(story())


def test_what_a_forger_made_fail_does_not_hold_up_a_true_advert(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        for seq in (1, 2, 3):
            node.store(seq)
        backfill = backfill_of(parts, first_retry_s=3600)
        await parts.stream()
        forged = heard(2, key=bytes(16))
        _, nobody = unreachable(99, node)
        assert backfill.consider(forged, parts.ingest.advert(forged), nobody)
        await asyncio.gather(*backfill._tasks)
        assert not backfill.consider(forged, parts.ingest.advert(forged), nobody)
        await visit(backfill, parts, node, 3)
        assert node.acked == [3]
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize("segments", [2, 3])
def test_what_the_ring_overwrote_is_said(tmp_path: Path, segments: int) -> None:
    log_ = ReadingLog(str(tmp_path / "log"), EPOCH, segments, 4)
    for seq in range(1, 21):
        log_.append(record(seq))
    kept = [r for r in log_.read(EPOCH, 1, 20) if r[1] == 1]
    lost = [r for r in log_.read(EPOCH, 1, 20) if r[1] == 3]
    assert len(kept) == 4 * segments
    assert len(lost) == 1
