"""Rows that a broker refuses: how many wait for the disk, and a disk that has no room."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from kerb_gateway.burial import Burial
from kerb_gateway.errors import StoreError, StoreFull
from kerb_gateway.model import Payloads
from kerb_gateway.publisher import Batch, Publisher, Refused
from kerb_gateway.store.database import Store
from kerb_gateway.store.outbox import Outbox, Outgoing
from kerb_gateway.uplink.payloads.native import NativePayloads
from parts import TOPICS, Parts, heard, log
from test_publisher import (
    ALONE,
    ScriptedBroker,
    bury_in,
    marked,
    numbers,
    outbox_of,
    reached,
    store_with,
)

_WINDOW = 10
_WAITING = 256 + _WINDOW  # what was in flight when the bound was reached comes back too


class RefusingBroker(ScriptedBroker):
    """Refuses each message for good."""

    def publish(self, topic: str, payload: bytes) -> int:
        mid = super().publish(topic, payload)
        asyncio.get_running_loop().call_soon(lambda: self.on_acked(mid, 0x87))
        return mid


def test_refused_rows_that_wait_are_bounded_and_kept_together(tmp_path: Path) -> None:
    count = 1000

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", count)
        room, keep = asyncio.Event(), bury_in(store)
        commits: list[int] = []

        async def bury(refused: Refused) -> None:
            await room.wait()
            commits.append(len(refused))
            await keep(refused)

        broker = RefusingBroker()
        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), log,
            in_flight=_WINDOW, mark_s=60, bury=bury, batch=ALONE,
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        async with asyncio.timeout(20):
            while len(broker.sent) < 256:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert len(broker.sent) <= _WAITING
        room.set()
        async with asyncio.timeout(20):
            while sum(commits) < count:
                await asyncio.sleep(0.01)
        assert len(commits) < count / 50
        await publisher.mark()
        assert await marked(store) == count
        dead = await store.query("select outbox_no from dead_letters order by outbox_no")
        assert [number for (number,) in dead] == list(range(1, count + 1))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(story())


class GatedOutbox(Outbox):
    """The real outbox; what is read is handed over when the gate is open."""

    def __init__(self, store: Store, payloads: Payloads) -> None:
        super().__init__(store, payloads)
        self.gate = asyncio.Event()
        self.gate.set()

    async def after(self, outbox_no: int, limit: int) -> list[Outgoing]:
        rows = await super().after(outbox_no, limit)
        await self.gate.wait()
        return rows


def test_what_is_refused_while_the_file_is_read_sends_nothing_twice(tmp_path: Path) -> None:
    """A batch comes back in the middle of a read; rows that are in flight stay there."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in range(1, 301):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        payloads = NativePayloads(TOPICS, parts.store.gw_epoch)
        outbox = parts.ledger.outbox = GatedOutbox(parts.store, payloads)
        await outbox.load()
        broker = ScriptedBroker()
        publisher = Publisher(
            outbox, broker, parts.ingest.committed, log, in_flight=100, mark_s=60,
            bury=Burial(parts.ledger, parts.ingest.commit).bury, batch=Batch(TOPICS.batch, 64),
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        await reached(broker, 5)
        outbox.gate.clear()
        parts.ingest.committed.set()
        await asyncio.sleep(0.8)  # a read has begun
        broker.on_acked(1, 0x99)
        outbox.gate.set()
        await reached(broker, 5 + 64)
        for mid, _ in broker.sent[1:]:
            broker.on_acked(mid, 0)
        await asyncio.sleep(0.3)
        assert [numbers(payload) for _, payload in broker.sent[5:]] == [[n] for n in range(1, 65)]
        assert publisher.delivered == 300
        await publisher.mark()
        assert await marked(parts.store) == 300
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await parts.store.close()

    asyncio.run(story())


def test_what_ends_the_marks_ends_the_publisher(tmp_path: Path) -> None:
    """Else it would send for years, and keep nothing of it."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 1)

        async def bury(refused: Refused) -> None:
            raise StoreError("the card is gone")

        publisher = Publisher(
            await outbox_of(store), RefusingBroker(), asyncio.Event(), log,
            in_flight=5, mark_s=60, bury=bury, batch=ALONE,
        )  # fmt: skip
        with pytest.raises(StoreError, match="card"):
            await asyncio.wait_for(publisher.run(), 20)
        await store.close()

    asyncio.run(story())


def test_a_row_is_declared_lost_once_though_its_burial_is_cancelled(tmp_path: Path) -> None:
    """A full disk, and a stop in between: who comes again brings the same rows, and one more."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in (1, 2):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        first, second = await parts.ledger.outbox.after(0, 2)
        burial = Burial(parts.ledger, parts.ingest.commit)
        (pages,) = await parts.column("pragma page_count")
        await parts.store.query(f"pragma max_page_count = {pages}")
        big = msgspec.structs.replace(first, payload=bytes(100_000))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await burial.bury([(big, "0x87")])
        await parts.store.query("pragma max_page_count = 100000")
        await burial.bury([(big, "0x87"), (second, "0x87")])
        assert await parts.column("select outbox_no from dead_letters") == [1, 2]
        said = await parts.column("select payload from outbox where kind = 'message'")
        losses = [one for one in map(json.loads, said) if one.get("reason") == "refused"]
        assert [one["first_seq"] for one in losses] == [1, 2]
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize("says_so", [False, True])
def test_a_stop_does_not_wait_for_a_full_disk(tmp_path: Path, says_so: bool) -> None:
    """Who buries waits for room, or is told that there is none: both end, no row does."""

    async def story() -> None:
        store = await store_with(tmp_path / "g.sqlite", 3)

        async def bury(refused: Refused) -> None:
            if says_so:
                raise StoreFull("no room")
            await asyncio.Event().wait()

        broker = RefusingBroker()
        publisher = Publisher(
            await outbox_of(store), broker, asyncio.Event(), log,
            in_flight=5, mark_s=60, bury=bury, batch=ALONE,
        )  # fmt: skip
        task = asyncio.ensure_future(publisher.run())
        async with asyncio.timeout(20):
            while len(broker.sent) < 3:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(publisher.settle(0.1), 20)
        assert await marked(store) == 0
        await store.close()

    asyncio.run(story())
