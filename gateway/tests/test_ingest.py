"""The sequence table row by row, one transaction a batch, acknowledgement only after COMMIT."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerb_gateway import ingest
from kerb_gateway.guard import Guard
from kerb_gateway.model import Gap, Node, Stream
from kerb_wire import records
from kerb_wire.limits import JUMP_LIMIT
from parts import EPOCH, KEY, NODE_ID, Parts, heard, record


def test_gaps_are_known_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in (1, 5, 9):
            assert parts.ingest.advert(heard(seq)).kind == ingest.ACCEPTED
        await parts.ingest.commit()
        parts = await parts.again()
        stream = parts.ledger.newest_stream(NODE_ID)
        assert stream is not None
        assert stream.gaps == [Gap(2, 4), Gap(6, 8)]
        assert parts.ingest.advert(heard(3)).kind == ingest.HELD_BACK
        await parts.store.close()

    asyncio.run(story())


def test_the_sequence_table(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        take = parts.ingest.advert
        late = {"via": "backfill", "auth": "session"}
        assert take(heard(1)).kind == ingest.ACCEPTED
        assert take(heard(1)).kind == ingest.DUPLICATE  # a second adapter
        assert take(heard(1, 1234)).kind == ingest.TAMPERED
        assert take(heard(5)).kind == ingest.ACCEPTED
        assert stream.gaps == [Gap(2, 4)]
        assert take(heard(3)).kind == ingest.HELD_BACK
        assert stream.gaps == [Gap(2, 4)]
        assert parts.ingest.record(stream, record(3), **late) == "filled"
        assert stream.gaps == [Gap(2, 2), Gap(4, 4)]
        assert take(heard(3)).kind == ingest.DUPLICATE  # its advert, late
        assert parts.ingest.record(stream, record(3), **late) == "duplicate"
        assert take(heard(6 + JUMP_LIMIT)).kind == ingest.QUARANTINED
        assert stream.last_seq == 5
        assert NODE_ID in parts.ingest.suspect
        for seq in range(6, 80):
            assert take(heard(seq)).kind == ingest.ACCEPTED
        assert take(heard(1)).kind == ingest.REPLAY  # outside the recent window
        await parts.ingest.commit()
        stored = await parts.column("select seq from readings order by reading_no")
        assert stored == [1, 5, 3, *range(6, 80)]
        assert await parts.column("select count(*) from outbox") == [len(stored)]
        await parts.store.close()

    asyncio.run(story())


def test_a_forged_mic_stores_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        all_are_tried = Guard(limit=10_000, window_s=1)
        parts = await Parts.open(tmp_path / "g.sqlite", guard=all_are_tried)
        await parts.stream()
        assert parts.ingest.advert(heard(1, key=bytes(16))).kind == "refused"
        good = heard(2)
        for bit in range(8 * len(good.service_data)):
            data = bytearray(good.service_data)
            data[bit // 8] ^= 1 << bit % 8
            bad = dataclasses.replace(good, service_data=bytes(data))
            assert parts.ingest.advert(bad).kind in ("refused", "quarantined")
        await parts.ingest.commit()
        assert await parts.column("select count(*) from readings") == [0]
        await parts.store.close()

    asyncio.run(story())


def test_losses_are_declared_once_with_their_reason(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream(last_seq=10)
        assert stream.gaps == [Gap(1, 10)]
        parts.ingest.record(stream, records.pack_lost(3, 6, 1), via="backfill", auth="session")
        parts.ingest.record(stream, records.pack_lost(3, 6, 1), via="backfill", auth="session")
        await parts.ingest.commit()
        assert stream.gaps == [Gap(1, 2), Gap(7, 10)]
        losses = [p for p in await parts.payloads() if p.get("kind") == "loss"]
        assert [(p["first_seq"], p["last_seq"], p["reason"]) for p in losses] == [(3, 6, "unused")]
        await parts.store.close()

    asyncio.run(story())


def test_a_new_epoch_leaves_a_tail_record(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream(last_seq=4)
        fresh = await parts.ingest.epoch(parts.nodes[0], EPOCH + 1, 2)
        await parts.ingest.commit()
        assert fresh.gaps == [Gap(1, 2)]
        (tail,) = [p for p in await parts.payloads() if p.get("kind") == "loss"]
        assert (tail["first_seq"], tail["last_seq"], tail["reason"]) == (5, None, "tail unknown")
        await parts.store.close()

    asyncio.run(story())


def test_what_was_not_committed_never_happened(tmp_path: Path) -> None:
    """Readings, watermark, gaps and outbox rows stand or fall together."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        await parts.stream()
        parts.ingest.advert(heard(1))
        await parts.ingest.commit()
        parts.ingest.advert(heard(5))
        await parts.store.close()  # without a commit: a SIGKILL at this moment
        again = await Parts.open(path)
        stream = again.ledger.newest_stream(NODE_ID)
        assert stream is not None
        assert stream.last_seq == 1
        assert stream.gaps == []
        assert await again.column("select count(*) from outbox") == [1]
        assert again.ingest.advert(heard(5)).kind == ingest.ACCEPTED
        await again.ingest.commit()
        await again.store.close()
        third = await Parts.open(path)
        stream = third.ledger.newest_stream(NODE_ID)
        assert stream is not None
        assert stream.gaps == [Gap(2, 4)]
        assert third.ingest.advert(heard(5)).kind == ingest.DUPLICATE  # digests are kept too
        await third.store.close()

    asyncio.run(story())


def test_a_cancelled_commit_is_still_written(tmp_path: Path) -> None:
    """SIGTERM cancels whoever waits; the batch in the writer's queue must not go with him."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        parts.ingest.advert(heard(1))
        busy = asyncio.ensure_future(parts.store._run(time.sleep, 0.3))
        await asyncio.sleep(0.05)
        commit = asyncio.ensure_future(parts.ingest.commit())
        await asyncio.sleep(0.05)
        commit.cancel()
        await asyncio.gather(commit, busy, return_exceptions=True)
        parts.ingest.advert(heard(2))
        await parts.ingest.commit()
        assert await parts.column("select seq from readings order by reading_no") == [1, 2]
        await parts.store.close()

    asyncio.run(story())


def test_outbox_numbers_never_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        await parts.stream()
        parts.ingest.advert(heard(1))
        await parts.ingest.commit()
        await parts.store.write([("delete from outbox", [])])
        await parts.store.close()
        again = await Parts.open(path)
        again.ingest.advert(heard(2))
        await again.ingest.commit()
        assert await again.column("select outbox_no from outbox") == [2]
        await again.store.close()

    asyncio.run(story())


def test_the_file_is_as_durable_as_promised(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        assert await parts.column("pragma synchronous") == [2]
        assert await parts.column("pragma journal_mode") == ["wal"]
        await parts.store.close()

    asyncio.run(story())
    check = sqlite3.connect(tmp_path / "g.sqlite").execute("pragma integrity_check")
    assert check.fetchone() == ("ok",)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=60))
def test_gaps_against_a_naive_model(steps: list[tuple[int, bool]]) -> None:
    """Stored + open gaps are always exactly 1..last, whatever arrives in whatever order."""
    stream = Stream(1, Node(1, NODE_ID, "bin", KEY), EPOCH)
    stored: set[int] = set()
    for seq, authenticated in steps:
        kind = ingest.classify(stream, seq, bytes(8), authenticated=authenticated)
        if kind == ingest.ACCEPTED:
            assert seq not in stored
            if seq > stream.last_seq + 1:
                stream.gaps.append(Gap(stream.last_seq + 1, seq - 1))
            stream.last_seq = seq
            stored.add(seq)
            stream.remember(seq, bytes(8))
        elif kind == ingest.FILLED:
            assert seq not in stored
            stream.close(seq, seq)
            stored.add(seq)
        missing = {n for gap in stream.gaps for n in range(gap.first_seq, gap.last_seq + 1)}
        assert stored | missing == set(range(1, stream.last_seq + 1))
        assert not stored & missing
        assert all(n in stored for n in range(1, stream.accounted_seq() + 1))


@pytest.mark.parametrize("ahead", [JUMP_LIMIT, JUMP_LIMIT + 1])
def test_the_jump_limit_is_exact(ahead: int) -> None:
    stream = Stream(1, Node(1, NODE_ID, "bin", KEY), EPOCH, last_seq=10)
    kind = ingest.classify(stream, 10 + ahead, bytes(8), authenticated=False)
    assert kind == (ingest.ACCEPTED if ahead <= JUMP_LIMIT else ingest.QUARANTINED)
