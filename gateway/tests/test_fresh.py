"""Rows that were just committed go out from memory: each once, in order, as the file has them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from kerb_gateway.store.fresh import FRESH_ROWS, Fresh
from parts import Parts, heard


async def store_some(parts: Parts, seqs: range) -> None:
    for seq in seqs:
        parts.ingest.advert(heard(seq))
    await parts.ingest.commit()


def test_memory_and_file_say_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        await store_some(parts, range(1, 6))
        from_memory = await parts.ledger.outbox.after(0, 100)
        assert from_memory == await parts.outgoing()
        assert len(from_memory) == 5
        await parts.store.close()

    asyncio.run(story())


def test_letters_between_the_reader_and_memory_are_no_end(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        await store_some(parts, range(1, 4))
        _, *refused = await parts.ledger.outbox.after(0, 100)
        for row in refused:
            parts.ledger.bury(row, "0x87")
        await parts.ingest.commit()
        rows = await parts.ledger.outbox.after(1, 100)
        assert [row.outbox_no for row in rows] == [4, 5]  # of their losses
        await parts.store.close()

    asyncio.run(story())


def test_what_is_not_committed_is_not_sent(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        parts.ingest.advert(heard(1))
        assert await parts.ledger.outbox.after(0, 100) == []
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(6))
def test_every_row_comes_once_whoever_is_faster(tmp_path: Path, seed: int) -> None:
    """Commits and reads run into each other; sometimes the reader is far behind."""

    async def story() -> None:
        rng = random.Random(seed)
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        taken, seq = [0], 0
        reading = asyncio.Lock()  # the publisher is one

        async def read(limit: int) -> None:
            async with reading:
                rows = await parts.ledger.outbox.after(taken[-1], limit)
                taken.extend(row.outbox_no for row in rows)

        for _ in range(60):
            count = rng.choice((1, 3, 40, 700))
            jobs = [store_some(parts, range(seq + 1, seq + 1 + count))]
            seq += count
            jobs += [read(rng.choice((1, 7, 1000))) for _ in range(rng.randrange(3))]
            rng.shuffle(jobs)
            await asyncio.gather(*jobs)
        while taken[-1] < seq:
            await read(1000)
        assert taken[1:] == list(range(1, seq + 1))
        assert not parts.ledger.outbox._fresh
        await parts.store.close()

    asyncio.run(story())


def test_memory_is_bounded_and_a_run_has_no_hole() -> None:
    fresh = Fresh()
    rows = [(number, "message", None, "t", b"p") for number in range(1, FRESH_ROWS + 1)]
    assert fresh.keep(rows, {})
    assert not fresh.keep([(FRESH_ROWS + 1, "message", None, "t", b"p")], {})
    assert [row[0] for row, _ in fresh.take(2)] == [1, 2]
    assert fresh.first_no == 3
    assert not fresh.keep([(FRESH_ROWS + 1, "loss", 7, None, None)], {})  # nobody has its content
