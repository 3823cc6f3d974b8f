"""Traps of SQLite that others fell into: that they are there, and that we are not in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kerb_gateway.errors import StoreError
from kerb_gateway.store import report
from kerb_gateway.store.claim import Claim
from kerb_gateway.store.database import WAL_MAX_BYTES, Many, Store
from kerb_gateway.store.retention import Retention
from mqtt_parts import ScriptedBroker
from parts import EPOCH, Parts
from test_traps_paho import _CONFIG as CONFIG

_MB = 1024 * 1024
_PLAIN = "create table t (no integer primary key, value blob)"
_AUTO = "create table t (no integer primary key autoincrement, value blob)"


@contextlib.contextmanager
def opened(path: Path, mode: str = "rwc") -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None)
    with contextlib.closing(connection):
        yield connection


def wal(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


# --- AUTOINCREMENT ---


def _written(path: Path, table: str) -> int:
    """Return the bytes of log that 100 transactions of a row each take."""
    with opened(path) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute(table)
        for _ in range(100):
            connection.execute("insert into t (value) values (x'00')")
        return wal(path)


def test_autoincrement_writes_a_second_page_a_transaction(tmp_path: Path) -> None:
    plain, auto = _written(tmp_path / "p.db", _PLAIN), _written(tmp_path / "a.db", _AUTO)
    assert auto > 1.9 * plain


def test_no_table_of_ours_has_it(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "g.sqlite")
        await store.open()
        rows = await store.query("select name, sql from sqlite_master where type = 'table'")
        await store.close()
        assert len(rows) > 8
        assert not [name for name, sql in rows if "autoincrement" in sql.lower()]
        assert "sqlite_sequence" not in {name for name, _ in rows}

    asyncio.run(story())


# --- a reader that pins the write-ahead log ---


def test_a_reader_that_does_not_end_lets_the_log_grow(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    sizes = []
    for pinned in (False, True):
        with opened(path) as writer, contextlib.ExitStack() as stack:
            writer.execute("pragma journal_mode = wal")
            writer.execute(_PLAIN.replace("table", "table if not exists"))
            if pinned:
                reader = stack.enter_context(opened(path, "ro"))
                reader.execute("begin")
                reader.execute("select count(*) from t").fetchone()
            for _ in range(12):
                writer.execute("insert into t (value) values (zeroblob(1000000))")
            sizes.append(wal(path))
    assert sizes[0] < 6 * _MB
    assert sizes[1] > 11 * _MB


async def _fill(parts: Parts, megabytes: int) -> None:
    """Write so much, a megabyte a transaction."""
    insert = "insert into dead_letters (kind, topic, payload, reason) values ('message','t',?,'')"
    for _ in range(megabytes):
        await parts.store.write([Many(insert, [[bytes(_MB)]])])


def _retention(parts: Parts, said: list[str]) -> Retention:
    return Retention(
        parts.store,
        parts.ledger,
        parts.clock,
        lambda event, **_: said.append(event),
        commit=parts.ingest.commit_or_full,
        keep_s=1e9,
        max_bytes=1 << 40,
    )


def test_somebody_else_s_reader_is_said_once_and_the_log_shrinks_after_it(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        said: list[str] = []
        retention = _retention(parts, said)
        with opened(path, "ro") as reader:
            reader.execute("begin")
            reader.execute("select count(*) from outbox").fetchone()
            await _fill(parts, 18)
            assert parts.store.wal_bytes() > WAL_MAX_BYTES
            await retention.hour()
            await retention.hour()
        assert said == ["a reader pins the write-ahead log"]
        await parts.ledger.commit()
        payloads = await parts.column("select payload from outbox where kind = 'message'")
        assert [b"pins the write-ahead log" in one for one in payloads] == [True]
        await _fill(parts, 8)  # the reader has gone: the log is emptied, used anew, and cut
        assert parts.store.wal_bytes() <= WAL_MAX_BYTES
        await retention.hour()
        assert said == ["a reader pins the write-ahead log"]
        await parts.store.close()

    asyncio.run(story())


def test_our_log_stays_small_without_one(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await _fill(parts, 40)
        assert parts.store.wal_bytes() <= WAL_MAX_BYTES
        await parts.store.close()

    asyncio.run(story())


def _losses(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "kerb_tools", "losses", str(path), "--json"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_kerb_losses_does_not_pin_while_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """Its output into a pager that waits: by then it has let go of the database."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        await parts.ledger.commit()
        insert = "insert into losses (stream_no, first_seq, last_seq, reason) values (?,?,?,'crc')"
        rows = [[stream.stream_no, n, n] for n in range(1, 3001)]
        await parts.store.write([Many(insert, rows)])
        process = _losses(tmp_path / "g.sqlite")
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1) == b"{"  # it speaks, and is held up here
        assert process.poll() is None
        await _fill(parts, 1)
        busy, *_ = (await parts.store.query("pragma wal_checkpoint(truncate)"))[0]
        assert busy == 0
        assert parts.store.wal_bytes() == 0
        process.kill()
        process.communicate()
        await parts.store.close()

    asyncio.run(story())


def test_a_report_s_view_is_one_and_ends(tmp_path: Path) -> None:
    """What a reader of ours sees does not change under it, and is let go when it is done."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        await parts.ingest.epoch(parts.nodes[0], EPOCH, 5)
        await parts.ingest.commit()
        with report.opened(path) as connection:
            before = report.streams(connection)
            await parts.ingest.epoch(parts.nodes[0], EPOCH, 9)
            await parts.ingest.commit()
            assert report.streams(connection) == before
        (busy, *_) = (await parts.store.query("pragma wal_checkpoint(truncate)"))[0]
        assert busy == 0
        await parts.store.close()

    asyncio.run(story())


# --- two processes that write ---


def test_only_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    first, second = Claim(tmp_path / "g.sqlite"), Claim(tmp_path / "g.sqlite")
    assert first.take()
    assert not second.take()
    assert second.holder() == str(os.getpid())
    with pytest.raises(StoreError, match=f"process {os.getpid()} writes"):
        asyncio.run(second.wait(0.2))
    first.give_back()
    assert second.take()
    second.give_back()
    with pytest.raises(StoreError, match="No such file"):
        Claim(tmp_path / "no" / "g").take()


async def _start(folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kerb_gateway", "run", "-c", str(folder / "gateway.toml"),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


async def _line(process: asyncio.subprocess.Process, text: bytes) -> Any:
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while text not in (line := await process.stderr.readline()):
            assert line, f"the gateway ended before it said {text!r}"
    return line


def test_a_second_gateway_on_a_database_is_refused(tmp_path: Path) -> None:
    """Two real processes; and after SIGKILL of the first, a third may."""

    async def story() -> None:
        broker = ScriptedBroker()
        (tmp_path / "gateway.toml").write_text(CONFIG.format(port=await broker.start()))
        first = await _start(tmp_path)
        await _line(first, b"started")
        second = await _start(tmp_path)
        _, said = await asyncio.wait_for(second.communicate(), 20)
        assert second.returncode == 1
        assert f"process {first.pid} writes to it already".encode() in said
        assert b"Traceback" not in said
        first.send_signal(signal.SIGKILL)
        await first.wait()
        third = await _start(tmp_path)
        await _line(third, b"started")
        third.terminate()
        await asyncio.wait_for(third.communicate(), 20)
        assert third.returncode == 0
        broker.stop()

    asyncio.run(story())
