"""The database by itself: older files, numbers that add up, a disk that is full or rotten."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kerb_gateway import ingest
from kerb_gateway.errors import StoreCorrupt
from kerb_gateway.store.ballast import Ballast
from kerb_gateway.store.database import Inserts, Store
from kerb_gateway.store.migrations import migrations
from parts import EPOCH, NODE_ID, Parts, heard
from sqlite_utils import Database


def older_file(path: Path) -> None:
    """Make a database as the first schema had it, with two readings, a loss and an outbox row."""
    db = Database(path)
    migrations.apply(db, stop_before="m002_outbox_by_reference")
    db.execute("insert into meta values ('gw_epoch', 'abc'), ('outbox_last', '9')")
    db.execute("insert into nodes values (1, ?, 'bin')", [NODE_ID])
    db.execute("insert into streams values (1, 1, ?, 7, x'00')", [EPOCH])
    for number, seq in ((1, 1), (2, 7)):
        db.execute(
            "insert into readings (reading_no, stream_no, seq) values (?,1,?)", [number, seq]
        )
    db.execute("insert into losses values (1, 1, 2, 3, 'crc', 0), (2, 1, 8, null, 'tail', 0)")
    db.execute("insert into gaps values (1, 1, 4, 6)")
    db.execute("insert into outbox values (9, 'kerb/v1/a/b/c/reading', x'31')")
    db.conn.commit()
    db.close()


def test_an_older_file_is_brought_forward_with_its_outbox(tmp_path: Path) -> None:
    async def story() -> None:
        older_file(tmp_path / "g.sqlite")
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = parts.ledger.streams[(NODE_ID, EPOCH)]
        assert (stream.last_seq, stream.stored, stream.lost, stream.missing()) == (7, 2, 2, 3)
        assert stream.unexplained() == 0
        waiting = await parts.ledger.outbox.after(parts.ledger.outbox.done, 10)
        assert [(one.outbox_no, one.payload) for one in waiting] == [(9, b"1")]
        assert parts.ingest.advert(heard(8)).kind == ingest.ACCEPTED
        await parts.ingest.commit()
        assert await parts.column("select max(outbox_no) from outbox") == [10]
        assert await parts.column("select value from meta where key='gw_epoch'") == ["abc"]
        await parts.store.close()

    asyncio.run(story())


def test_numbers_that_do_not_add_up_raise_one_alarm(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        parts.ingest.advert(heard(5))
        await parts.ingest.commit()
        assert stream.unexplained() == 0
        stream.close(2, 3)  # a gap that shrinks though nothing was stored
        for seq in (6, 7):
            parts.ingest.advert(heard(seq))
            await parts.ingest.commit()
        alarms = [p for p in await parts.payloads() if p["kind"] == "alarm"]
        assert len(alarms) == 1
        assert {name: alarms[0][name] for name in ("last_seq", "stored", "in_gaps")} == {
            "last_seq": 6,
            "stored": 2,
            "in_gaps": 2,
        }
        assert alarms[0]["unexplained"] == 2
        await parts.store.close()

    asyncio.run(story())


def test_a_batch_that_python_refuses_leaves_no_transaction_open(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "g.sqlite")
        await store.open()
        insert = "insert into meta values (?,?)"
        with pytest.raises(OverflowError):
            await store.write([(insert, ["a", 1]), (insert, ["b", 2**63])])
        await store.write([(insert, ["c", 3])])
        rows = await store.query("select key from meta where key in ('a', 'b', 'c')")
        assert rows == [("c",)]
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 200])
def test_rows_that_share_a_statement_are_each_written_once(tmp_path: Path, count: int) -> None:
    async def story() -> None:
        store = Store(tmp_path / "g.sqlite")
        await store.open()
        insert = "insert into dead_letters (outbox_no, reason) values (?,?)"
        await store.write([Inserts(insert, range(count), lambda number: (number, f"{number}!"))])
        stored = await store.query("select outbox_no, reason from dead_letters order by outbox_no")
        assert stored == [(number, f"{number}!") for number in range(count)]
        await store.close()

    asyncio.run(story())


def test_a_write_is_done_though_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    """It stands behind another in the queue when its waiter is cancelled."""

    async def story() -> None:
        store = Store(tmp_path / "g.sqlite")
        await store.open()
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("begin immediate")
        insert = "insert into meta values (?,?)"
        first = asyncio.ensure_future(store.write([(insert, ["a", 1])]))
        second = asyncio.ensure_future(store.write([(insert, ["b", 2])]))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        other.execute("rollback")
        other.close()
        await first
        rows = await store.query("select key from meta where key in ('a', 'b') order by key")
        assert rows == [("a",), ("b",)]
        await store.close()

    asyncio.run(story())


def test_recent_digests_come_back_from_the_readings(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in range(1, 81):
            parts.ingest.advert(heard(seq))
        before = dict(parts.ledger.streams[(NODE_ID, EPOCH)].recent)
        await parts.ingest.commit()
        await parts.store.close()
        again = await Parts.open(tmp_path / "g.sqlite")
        assert dict(again.ledger.streams[(NODE_ID, EPOCH)].recent) == before
        assert len(before) == 64
        assert again.ingest.advert(heard(80)).kind == ingest.DUPLICATE
        assert again.ingest.advert(heard(80, 1234)).kind == ingest.TAMPERED
        await again.store.close()

    asyncio.run(story())


def test_an_outbox_row_without_its_reading_is_said_and_does_not_stop_the_rest(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in (1, 2, 3):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        await parts.store.write([("delete from readings where seq = 2", [])])
        parts = await parts.again()  # what was just committed is not read back
        sent = await parts.ledger.outbox.after(0, 10)
        assert [json.loads(one.payload)["seq"] for one in sent] == [1, 3]
        assert await parts.column("select reason from dead_letters") == ["its row is missing"]
        for one in sent:
            parts.ledger.outbox.ended(one.outbox_no)
        assert parts.ledger.outbox.done == 3
        await parts.store.close()

    asyncio.run(story())


# --- a disk without room ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_needs_nobody(small_disk: Path) -> None:
    """ENOSPC for real: the ballast buys time, then everything waits, then it goes on by itself."""

    async def story() -> None:
        parts = await Parts.open(small_disk / "g.sqlite")
        ballast = Ballast(small_disk / "g.sqlite", 128 * 1024)
        assert ballast.load()
        parts.ingest._ballast = ballast
        parts.ingest._full_retry_s = 0.05
        await parts.stream()
        parts.ingest.advert(heard(1))
        await parts.ingest.commit()
        _fill(small_disk / "somebody.else")
        seq = 1
        while not parts.ingest.full:
            for _ in range(50):
                seq += 1
                parts.ingest.advert(heard(seq))
            committing = asyncio.ensure_future(parts.ingest.commit())
            await asyncio.sleep(0.05)
        assert not (small_disk / "g.sqlite.ballast").exists()
        while committing.done():  # the ballast's room is used up too
            for _ in range(50):
                seq += 1
                parts.ingest.advert(heard(seq))
            committing = asyncio.ensure_future(parts.ingest.commit())
            while not committing.done() and not parts.ingest.full:
                await asyncio.sleep(0.01)
        before = await parts.column("select max(seq) from readings")
        assert before[0] < seq
        (small_disk / "somebody.else").unlink()
        await asyncio.wait_for(committing, 10)
        assert await parts.column("select count(*), max(seq) from readings") == [seq]
        alarms = [p["what"] for p in await parts.payloads() if p["kind"] == "alarm"]
        assert alarms == ["disk full"]
        assert not parts.ingest.full
        assert (small_disk / "g.sqlite.ballast").exists()  # for the next time
        await parts.store.close()
        await _is_sound(small_disk / "g.sqlite")

    asyncio.run(story())


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


async def _is_sound(path: Path) -> None:
    store = Store(path)
    await store.open()
    assert await store.query("pragma integrity_check") == [("ok",)]
    await store.close()


def test_memory_is_bounded_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        monkeypatch.setattr(ingest, "_FULL_ROWS", 100)
        rows = await parts.store.query("pragma page_count")
        await parts.store.query(f"pragma max_page_count = {rows[0][0]}")
        parts.ingest._full_retry_s = 0.02
        kinds = []
        task = None
        for seq in range(1, 400):
            kinds.append(parts.ingest.advert(heard(seq)).kind)
            if seq == 100:
                task = asyncio.ensure_future(parts.ingest.commit())
                await asyncio.sleep(0.2)
                assert parts.ingest.full
        assert ingest.NO_ROOM in kinds
        taken = kinds.count(ingest.ACCEPTED)
        assert stream.last_seq == taken
        await parts.store.query("pragma max_page_count = 1000000")
        assert task is not None
        await asyncio.wait_for(task, 10)
        assert parts.ingest.advert(heard(400)).kind == ingest.ACCEPTED
        await parts.ingest.commit()
        assert stream.missing() == 399 - taken  # backfill will bring them
        assert await parts.column("select count(*) from readings") == [taken + 1]
        await parts.store.close()

    asyncio.run(story())


# --- a rotten file ---


@pytest.mark.parametrize("where", ["header", "middle"])
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(tmp_path: Path, where: str) -> None:
    path = tmp_path / "g.sqlite"

    async def fill() -> str:
        parts = await Parts.open(path)
        await parts.stream()
        for seq in range(1, 400):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        epoch = parts.store.gw_epoch
        await parts.store.close()
        return epoch

    async def meet() -> None:
        """A store meets the damage while it runs, says so, and ends."""
        store = Store(path)
        await store.open()
        with pytest.raises(StoreCorrupt):
            await store.query("select sum(length(stream_no || boot_id)) from readings")
        await store.close()

    async def again(before: str) -> None:
        store = Store(path)
        await store.open()
        assert store.gw_epoch != before
        assert store.put_aside is not None
        assert store.put_aside.name == "g.sqlite.damaged-1"
        assert await store.query("select value from meta where key = 'put_aside'") == [
            ("g.sqlite.damaged-1",)  # until it is said, whoever is killed
        ]
        assert await store.query("select count(*) from readings") == [(0,)]
        await store.close()
        await _is_sound(path)

    epoch = asyncio.run(fill())
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(0 if where == "header" else 4096 * 30)
        file.write(os.urandom(4096 if where == "header" else (size - 4096 * 31) // 2))
    if where == "middle":
        asyncio.run(meet())
    with pytest.raises(StoreCorrupt, match="damaged"):
        asyncio.run(Store(path, mends=False).open())
    assert not list(tmp_path.glob("*.damaged-*"))
    asyncio.run(again(epoch))
    assert not list(tmp_path.glob("*.suspect"))


def test_who_is_killed_while_a_damaged_file_is_put_aside_goes_on(tmp_path: Path) -> None:
    """Between the renames: the log belongs to the file that has its new name already."""
    path = tmp_path / "g.sqlite"
    (tmp_path / "g.sqlite.damaged-1").write_bytes(b"an older one")
    (tmp_path / "g.sqlite.damaged-2").write_bytes(b"damaged")
    (tmp_path / "g.sqlite-wal").write_bytes(b"its log")
    (tmp_path / "g.sqlite.suspect").touch()

    async def story() -> None:
        store = Store(path)
        await store.open()
        assert store.put_aside == tmp_path / "g.sqlite.damaged-2"
        assert (tmp_path / "g.sqlite.damaged-2-wal").read_bytes() == b"its log"
        await store.close()

    asyncio.run(story())
    assert not (tmp_path / "g.sqlite.suspect").exists()


def test_a_suspicion_that_is_unfounded_changes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        epoch = parts.store.gw_epoch
        await parts.store.close()
        (tmp_path / "g.sqlite.suspect").touch()
        again = await Parts.open(tmp_path / "g.sqlite")
        assert again.store.gw_epoch == epoch
        assert again.store.put_aside is None
        assert not (tmp_path / "g.sqlite.suspect").exists()
        await again.store.close()

    asyncio.run(story())
