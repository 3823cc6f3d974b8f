"""The database by itself: older files, numbers that add up, a disk that is full or rotten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from kerb_gateway import ingest
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
        sent = await parts.ledger.outbox.after(0, 10)
        assert [json.loads(one.payload)["seq"] for one in sent] == [1, 3]
        assert await parts.column("select reason from dead_letters") == ["its row is missing"]
        for one in sent:
            parts.ledger.outbox.ended(one.outbox_no)
        assert parts.ledger.outbox.done == 3
        await parts.store.close()

    asyncio.run(story())
