"""A backup is whole or not there, whoever writes, dies or has no room meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gateways import Running, command, fill, write_config
from kerb_gateway.backups import DONE, FAILED, RUNNING, Backups
from kerb_gateway.errors import CopyError
from kerb_gateway.service.protocol import BadRequest
from kerb_gateway.store import backup
from kerb_gateway.store.database import WAL_MAX_BYTES, Many, Store
from parts import log

_ROWS = 1500
_BIG = "insert into meta values (?, hex(randomblob(2000)))"


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True) as db:
        return db.execute(query).fetchall()


async def big(path: Path) -> Store:
    """Return an open store of some megabytes."""
    store = Store(path)
    await store.open()
    await store.write([Many(_BIG, [[f"row {n}"] for n in range(_ROWS)])])
    return store


def test_the_running_gateway_makes_a_backup(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "gateway.sqlite", 300, buried=False))
    config = write_config(tmp_path)
    copy = tmp_path / "elsewhere" / "copy.sqlite"
    copy.parent.mkdir()

    async def story() -> None:
        async with Running(config) as gateway:
            said = await asyncio.to_thread(command, config, "backup", str(copy), "--json")
            assert json.loads(said) == {"file": str(copy), "bytes": copy.stat().st_size}
            assert len(gateway.events("backup done")) == 1
            again = await asyncio.to_thread(command, config, "backup", str(copy), status=1)
            assert "never overwritten" in again

    asyncio.run(asyncio.wait_for(story(), 60))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [one.name for one in copy.parent.iterdir()] == ["copy.sqlite"]
    assert rows(copy, "pragma integrity_check") == [("ok",)]
    assert rows(copy, "select count(*) from readings") == [(300,)]
    assert dict(rows(copy, "select key, value from meta"))["gateway"] == "gw1"


def test_writes_meanwhile_neither_restart_it_nor_swell_the_log(tmp_path: Path) -> None:
    """By the writer's own connection: what is written while it runs is in it, whole."""
    seen: list[int] = []

    async def story() -> None:
        store = await big(tmp_path / "g.sqlite")
        copying = asyncio.ensure_future(
            store.copy_to(tmp_path / "copy", lambda done, total: seen.append(done))
        )
        written = 0
        while not copying.done():
            rows = [[f"more {written} {n}"] for n in range(100)]
            await store.write(
                [Many("delete from meta where key like 'more%' and ? != ''", rows[:1])]
            )
            await store.write([Many(_BIG, rows)])
            written += 1
        assert await copying
        assert written > 3
        assert store.wal_bytes() <= WAL_MAX_BYTES / 2
        await store.close()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert len(seen) > 5
    assert seen == sorted(seen)  # it has never begun anew
    assert rows(tmp_path / "copy", "pragma integrity_check") == [("ok",)]
    assert rows(tmp_path / "copy", "select count(*) from meta where key like 'row%'") == [(_ROWS,)]
    ((more,),) = rows(tmp_path / "copy", "select count(*) from meta where key like 'more%'")
    assert more in (0, 100)  # no transaction by halves


def test_a_stop_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        store = await big(tmp_path / "g.sqlite")
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        copying = asyncio.ensure_future(
            store.copy_to(tmp_path / "copy", lambda *_: loop.call_soon_threadsafe(begun.set))
        )
        await begun.wait()
        await store.close()
        with pytest.raises(CopyError, match="stops"):
            await copying

    asyncio.run(asyncio.wait_for(story(), 30))
    assert not (tmp_path / "copy").exists()
    assert not backup.partial(tmp_path / "copy").exists()


_KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from kerb_gateway.store import backup
database, file = map(Path, sys.argv[1:])
backup.take_closed(database, file, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_one_looks_like_none_and_the_next_one_succeeds(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "gateway.sqlite", 5, buried=False))
    config, copy = write_config(tmp_path), tmp_path / "copy.sqlite"
    answer = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "gateway.sqlite"), str(copy)]
    )
    assert answer.returncode == -signal.SIGKILL
    assert not copy.exists()
    assert backup.partial(copy).exists()
    before = (tmp_path / "gateway.sqlite").read_bytes()
    assert "complete and sound" in command(config, "backup", str(copy))
    assert (tmp_path / "gateway.sqlite").read_bytes() == before
    assert not backup.partial(copy).exists()
    assert rows(copy, "select count(*) from readings") == [(5,)]


def test_what_must_not_be_written_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    none = command(config, "backup", str(tmp_path / "copy"), status=1)
    assert "no such file, and no gateway runs" in none
    asyncio.run(fill(tmp_path / "gateway.sqlite", 1, buried=False))
    for name in ("gateway.sqlite", "gateway.sqlite-wal", "gateway.sqlite.restoring"):
        said = command(config, "backup", str(tmp_path / name), status=1)
        assert "belongs to the gateway" in said
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "never overwritten" in command(config, "backup", str(tmp_path / "link"), status=1)
    assert "no such folder" in command(config, "backup", str(tmp_path / "no" / "f"), status=1)
    assert backup.refusal(Path("relative"), tmp_path / "gateway.sqlite") is not None


def test_a_place_that_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    """A name that is too long stands for all that the system refuses to look at."""
    asyncio.run(fill(tmp_path / "gateway.sqlite", 1, buried=False))
    config = write_config(tmp_path)
    too_long = tmp_path / ("x" * 300)
    for place in (too_long, too_long / "copy"):
        said = command(config, "backup", str(place), status=1)
        assert said.strip() == f"kerb-gateway: {too_long}: File name too long"
        said = command(config, "restore", str(place), status=2)
        assert said.strip() == f"kerb-gateway: {place}: File name too long"

    async def story() -> None:
        async with Running(config):
            said = await asyncio.to_thread(command, config, "backup", str(too_long), status=1)
            assert said.strip() == f"kerb-gateway: {too_long}: File name too long"

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize(
    "words", [["backup", "/copy"], ["restore", __file__], ["letters", "list"]]
)
def test_a_database_that_cannot_be_looked_at_is_said(tmp_path: Path, words: list[str]) -> None:
    config = write_config(tmp_path, more='[control]\nsocket = "nobody"\n')
    for name in ("x" * 300, "x" * 251, f"{'x' * 300}/gateway.sqlite"):
        text = config.read_text().replace('path = "gateway.sqlite"', f'path = "{name}"')
        config.with_name("long.toml").write_text(text)
        said = command(config.with_name("long.toml"), *words, status=1)
        assert str(tmp_path / "x") in said
        assert "File name too long" in said or "no such file" in said


async def made(backups: Backups) -> dict[str, Any]:
    """Wait until a backup runs no more; returns its state."""
    async with asyncio.timeout(20):
        while (state := backups.state())["state"] == RUNNING:
            await asyncio.sleep(0.01)
    return state


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    said = command(config, "backup", str(tmp_path / "caf\udce9"), status=2)
    assert "is not UTF-8; choose another name" in said

    async def story() -> None:
        store = await big(tmp_path / "g.sqlite")
        backups = Backups(store, log)
        for name in ("a\0b", "a\0b/copy", "caf\ud800"):
            with pytest.raises(BadRequest, match="no file can have that name"):
                backups.begin(tmp_path / name, "somebody")
        backups.begin(tmp_path / "copy", "somebody")  # those before do not run
        assert (await made(backups))["state"] == DONE
        await store.close()

    asyncio.run(story())


def test_whatever_ends_a_backup_it_runs_no_more(tmp_path: Path) -> None:
    """What nobody foresaw, here that no thread can be had: the next one must not be kept out."""

    async def story() -> None:
        store = await big(tmp_path / "g.sqlite")
        threads, store._copier = store._copier, ThreadPoolExecutor(1)
        store._copier.shutdown()
        backups = Backups(store, log)
        backups.begin(tmp_path / "copy", "somebody")
        state = await made(backups)
        assert (state["state"], "RuntimeError" in state["why"]) == (FAILED, True)
        assert backups._task is not None
        with pytest.raises(RuntimeError):
            await backups._task  # its traceback is not lost
        store._copier = threads
        backups.begin(tmp_path / "copy", "somebody")
        assert (await made(backups))["state"] == DONE
        await store.close()

    asyncio.run(story())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_no_room_at_the_target_is_said_and_hurts_nobody(small_disk: Path, tmp_path: Path) -> None:
    async def story() -> None:
        store = await big(tmp_path / "g.sqlite")
        with pytest.raises(CopyError, match="no room for the backup"):
            await store.copy_to(small_disk / "copy", lambda *_: None)
        await store.write([("insert into meta values ('after', 'all')", [])])
        assert list(small_disk.iterdir()) == []
        await store.close()

    asyncio.run(story())


def test_it_leaves_the_gateways_own_disk_some_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_RESERVE_BYTES", 1 << 60)

    async def story() -> None:
        store = await big(tmp_path / "g.sqlite")
        with pytest.raises(CopyError, match="would stay free"):
            await store.copy_to(tmp_path / "copy", lambda *_: None)
        await store.close()

    asyncio.run(story())
    assert not (tmp_path / "copy").exists()
