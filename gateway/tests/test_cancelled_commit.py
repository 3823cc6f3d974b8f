"""A session's timeout or SIGTERM cancels who waits for a COMMIT: memory and disk still agree."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from parts import NODE_ID, Parts, heard, record


@asynccontextmanager
async def another_writer(path: Path, for_s: float) -> AsyncIterator[None]:
    """Hold the file's write lock, for so long at least, so that a COMMIT has to wait."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    yield
    await asyncio.sleep(for_s)
    other.execute("rollback")
    other.close()


async def cancelled_commit(parts: Parts) -> None:
    """Commit with a time limit that ends while the write waits."""
    async with another_writer(parts.store.path, 0.0):
        loop = asyncio.get_running_loop()
        committing = asyncio.ensure_future(parts.ingest.commit())
        await asyncio.sleep(0.1)
        loop.call_soon(committing.cancel)
        await asyncio.sleep(0.1)
        assert not committing.done()  # the write is not to be stopped: its outcome counts
    with pytest.raises(asyncio.CancelledError):
        await committing


def test_what_was_written_is_known_to_be(tmp_path: Path) -> None:
    """Else a gap that is filled at once would stay on disk, and its number be stored twice."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        for seq in (1, 2, 3, 5):
            parts.ingest.advert(heard(seq))
        commits = parts.ingest.commits
        await cancelled_commit(parts)
        assert parts.ingest.commits == commits + 1
        parts.ingest.record(stream, record(4), via="backfill", auth="session")
        await parts.ingest.commit()
        again = await parts.again()
        known = again.ledger.newest_stream(NODE_ID)
        assert known is not None
        assert (known.ranges(), known.unexplained()) == ((), 0)
        await again.store.close()

    asyncio.run(story())


def test_what_found_no_room_still_waits(tmp_path: Path) -> None:
    """Else readings would be gone from memory while the watermark counts on them."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        await parts.ingest.commit()
        (pages,) = await parts.column("pragma page_count")
        await parts.store.query(f"pragma max_page_count = {pages}")
        seqs = list(range(1, 400))
        for seq in seqs:
            parts.ingest.advert(heard(seq))
        await cancelled_commit(parts)
        await parts.store.query("pragma max_page_count = 100000")
        parts.ingest.advert(heard(400))
        await parts.ingest.commit()
        assert await parts.column("select seq from readings order by seq") == [*seqs, 400]
        await parts.store.close()

    asyncio.run(story())
