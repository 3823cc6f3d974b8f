"""A restored backup: nothing that it cannot know is believed, and nothing that was is lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gateways import Running, command, fill, write_config
from kerb_gateway import ingest
from kerb_gateway.leases import Leases
from kerb_gateway.peers import Claims
from kerb_gateway.store import backup, install, migrations, restore
from kerb_gateway.store.claim import Claim
from kerb_gateway.store.database import Store
from kerb_gateway.store.letters import Letters
from parts import EPOCH, LAMP_ID, NODE_ID, Parts, heard, record
from sqlite_utils import Database

NAMES = {"site": "north", "gateway": "gw1"}


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True) as db:
        return db.execute(query).fetchall()


def epoch_of(file: Path) -> str:
    return str(rows(file, "select value from meta where key = 'gw_epoch'")[0][0])


async def hear(parts: Parts, *seqs: int) -> list[str]:
    """Let the gateway hear adverts; returns what became of each."""
    kinds = [parts.ingest.advert(heard(seq)).kind for seq in seqs]
    await parts.ingest.commit()
    return kinds


async def lived(path: Path) -> Parts:
    """Store 1 to 3, back up, store 4 to 6."""
    parts = await Parts.open(path)
    await parts.stream()
    await hear(parts, 1, 2, 3)
    await parts.store.copy_to(path.with_name("copy"), lambda *_: None)
    await hear(parts, 4, 5, 6)
    return parts


async def back(parts: Parts) -> Parts:
    """Close, restore the backup, and open again."""
    await parts.store.close()
    path = parts.store.path
    restore.restore(path, path.with_name("copy"), NAMES)
    return await Parts.open(path)


def test_recordings_are_not_believed_until_the_node_has_said_its_number(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await back(await lived(tmp_path / "g.sqlite"))
        assert await hear(parts, 4, 5, 6, 7) == [ingest.QUARANTINED] * 4
        assert parts.ledger.held == {NODE_ID, LAMP_ID}
        assert NODE_ID not in parts.ingest.suspect  # its flags can be read: no need to try blindly
        parts = await parts.again()  # a restart does not open the door
        assert await hear(parts, 4) == [ingest.QUARANTINED]
        stream = await parts.stream(7)
        assert stream.ranges() == ((4, 7),)
        assert await hear(parts, 5, 8) == [ingest.HELD_BACK, ingest.ACCEPTED]
        for seq in range(4, 8):
            assert parts.ingest.record(stream, record(seq), via="backfill", auth="session")
        await parts.ingest.commit()
        parts = await parts.again()
        assert await hear(parts, 9) == [ingest.ACCEPTED]
        sent = [p for p in await parts.payloads() if p["kind"] == "fill"]
        assert sorted(p["seq"] for p in sent) == list(range(1, 10))
        await parts.store.close()

    asyncio.run(story())


def test_the_numbers_belong_to_a_new_epoch_and_upstream_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await lived(tmp_path / "g.sqlite")
        old = parts.store.gw_epoch
        parts = await back(parts)
        assert parts.store.gw_epoch != old
        said = await restore.announce(parts.store, parts.ledger)
        assert said == [
            {
                "gw_epoch": parts.store.gw_epoch,
                "before": [old],
                "aside": "g.sqlite.before-restore-1",
            }
        ]
        await parts.ingest.commit()
        assert await restore.announce(parts.store, parts.ledger) == []
        (event,) = [p for p in await parts.payloads() if p["kind"] == "restored"]
        assert event == {
            "kind": "restored",
            "id": f"restored/{parts.store.gw_epoch}",
            "node": "gateway",
            "gw_epoch": parts.store.gw_epoch,
            "before": [old],
            "known_no": 3,
            "outbox_no": 4,
        }
        await parts.store.close()
        kept = tmp_path / "g.sqlite.before-restore-1"
        assert rows(kept, "select max(seq) from readings") == [(6,)]

    asyncio.run(story())


def test_a_restore_that_was_not_said_yet_keeps_its_name_over_another_one(tmp_path: Path) -> None:
    """It is sent from the newest epoch, and names the one that it began; so does the other."""

    async def story() -> None:
        parts = await lived(tmp_path / "g.sqlite")
        epochs = [parts.store.gw_epoch]
        for _ in range(2):
            parts = await back(parts)
            epochs.append(parts.store.gw_epoch)
            await restore.announce(parts.store, parts.ledger)
            await parts.ingest.commit()
            (tmp_path / "copy").unlink()
            await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
        events = [p for p in await parts.payloads() if p["kind"] == "restored"]
        assert [p["id"] for p in events] == [f"restored/{epoch}" for epoch in epochs[1:]]
        assert [p["before"] for p in events] == [[epoch] for epoch in epochs[:2]]
        assert [(p["gw_epoch"], p["outbox_no"]) for p in events] == [
            (epochs[2], 4),
            (epochs[2], 5),
        ]
        assert [p["known_no"] for p in events] == [3, 4]
        await parts.store.close()

    asyncio.run(story())


def test_tails_stand_under_the_new_epoch_and_are_taken_back_there(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        await hear(parts, 1)
        parts.ledger.open_tail(stream, parts.clock.now())
        await parts.ingest.commit()
        await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
        parts = await back(parts)
        await restore.announce(parts.store, parts.ledger)
        await parts.stream(1)
        await parts.ingest.commit()
        events = [p for p in await parts.payloads() if p["kind"] in ("loss", "found")]
        assert {p["kind"] for p in events} == {"loss", "found"}
        said = {p.get("of", p["id"]) for p in events}
        assert said == {f"loss/{NODE_ID}/{EPOCH}/2-/{parts.store.gw_epoch}/1"}
        await parts.store.close()

    asyncio.run(story())


def test_a_tail_that_was_closed_at_the_backup_keeps_its_name(tmp_path: Path) -> None:
    """Neither was delivered yet: both come after the restore, and the one takes back the other."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        await hear(parts, 1)
        parts.ledger.open_tail(stream, parts.clock.now())
        await hear(parts, 2)
        before = parts.store.gw_epoch
        await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
        parts = await back(parts)
        await restore.announce(parts.store, parts.ledger)
        await parts.ingest.commit()
        events = {p["kind"]: p for p in await parts.payloads()}
        assert events["loss"]["id"] == f"loss/{NODE_ID}/{EPOCH}/2-/{before}/1"
        assert events["found"]["of"] == events["loss"]["id"]
        await parts.store.close()

    asyncio.run(story())


def test_losses_of_a_release_before_have_the_epoch_of_their_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "g.sqlite") as db:
        migrations.migrations.apply(Database(db), stop_before="m008_told_apart")
        db.execute("insert into meta values ('gw_epoch', 'before')")
        db.execute("insert into losses (loss_no, stream_no, first_seq) values (1, 1, 2)")
    db.close()

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        assert await parts.column("select gw_epoch from losses") == ["before"]
        await parts.store.close()

    asyncio.run(story())


def test_a_letter_takes_back_the_loss_that_was_said_before_the_restore(tmp_path: Path) -> None:
    async def story() -> None:
        await fill(tmp_path / "g.sqlite", 1, buried=True)
        parts = await Parts.open(tmp_path / "g.sqlite")
        (loss,) = [p["id"] for p in await parts.payloads() if p["kind"] == "loss"]
        await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
        parts = await back(parts)
        letters = Letters(parts.store, parts.ledger, parts.clock)
        letters.replay((await letters.named([1]))[0], "somebody")
        await parts.ingest.commit()
        (found,) = [p for p in await parts.payloads() if p["kind"] == "found"]
        assert found["of"] == loss
        await parts.store.close()

    asyncio.run(story())


def test_a_replayed_row_has_the_epoch_that_it_went_out_with(tmp_path: Path) -> None:
    """Restored twice; of what waited at a backup, the delivery after the restore counts."""

    async def deliver(parts: Parts, last_no: int) -> None:
        outbox = parts.ledger.outbox
        for row in await outbox.after(outbox.read, last_no - outbox.done):
            outbox.ended(row.outbox_no)
        await outbox.write_mark()

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        epochs = []
        for seq, done_no in ((1, 2), (4, 5)):
            await hear(parts, seq, seq + 1, seq + 2)
            await deliver(parts, done_no)
            await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
            epochs.append(parts.store.gw_epoch)
            await hear(parts, seq + 3)  # the backup does not know it
            parts = await back(parts)
            (tmp_path / "copy").unlink()
            await parts.stream(seq + 2)
            await parts.ingest.commit()
        epochs.append(parts.store.gw_epoch)
        sent = [json.loads(row.payload) for row in await parts.ledger.outbox.kept(1, 6)]
        assert [p["outbox_no"] for p in sent] == [1, 2, 3, 4, 5, 6]
        named = [epochs.index(p["gw_epoch"]) for p in sent]
        assert named == [0, 0, 1, 1, 1, 2]
        live = [json.loads(row.payload) for row in await parts.ledger.outbox.after(5, 1)]
        assert [p["gw_epoch"] for p in live] == [epochs[2]]
        await parts.store.close()

    asyncio.run(story())


def test_numbers_of_commands_never_return(tmp_path: Path) -> None:
    """A lamp takes its last command's number for a repetition."""

    async def story() -> None:
        parts = await lived(tmp_path / "g.sqlite")
        await parts.store.write(
            [("insert into commands (command_no, command_id, state) values (77, 'c', 'done')", [])]
        )
        parts = await back(parts)
        (floor,) = await parts.column("select value from meta where key = 'command_floor'")
        assert int(floor) > 77
        await parts.store.copy_to(tmp_path / "copy 2", lambda *_: None)
        await parts.store.close()
        os.replace(tmp_path / "copy 2", tmp_path / "copy")
        restore.restore(tmp_path / "g.sqlite", tmp_path / "copy", NAMES)
        values = "select value from meta where key = 'command_floor'"
        assert int(rows(tmp_path / "g.sqlite", values)[0][0]) > int(floor)

    asyncio.run(story())


def test_a_damaged_database_does_not_keep_its_backup_out(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await lived(tmp_path / "g.sqlite")
        backed_up = parts.store.gw_epoch
        await parts.store.close()
        (tmp_path / "g.sqlite").write_bytes(b"rubbish" * 5000)
        done = restore.restore(tmp_path / "g.sqlite", tmp_path / "copy", NAMES)
        assert done.before == [backed_up]
        assert done.aside is not None
        assert done.aside.read_bytes().startswith(b"rubbish")
        assert rows(tmp_path / "g.sqlite", "select max(seq) from readings") == [(3,)]

    asyncio.run(story())


def test_a_new_card_without_any_database_takes_the_backup(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await lived(tmp_path / "g.sqlite")
        await parts.store.close()
        new = tmp_path / "new"
        new.mkdir()
        done = restore.restore(new / "g.sqlite", tmp_path / "copy", NAMES)
        assert done.aside is None
        parts = await Parts.open(new / "g.sqlite")
        assert await hear(parts, 4) == [ingest.QUARANTINED]
        await parts.store.close()
        assert [one.name for one in new.iterdir()] == ["g.sqlite"]

    asyncio.run(story())


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A configuration, its database of two readings, and a backup `copy` of it."""
    asyncio.run(fill(tmp_path / "gateway.sqlite", 2, buried=False))
    config = write_config(tmp_path)
    command(config, "backup", str(tmp_path / "copy"))
    return config


def change(file: Path, statement: str) -> None:
    with sqlite3.connect(file) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("insert into meta values ('site', 'south')", "is of site south"),
        ("insert into meta values ('gateway', 'gw2')", "is of gateway gw2"),
        ("pragma application_id = 7", "another program's"),
        ("drop table streams", "not a gateway's database"),
        (
            "insert into _sqlite_migrations (migration_set, name) values ('kerb_gateway', 'm999')",
            "newer release",
        ),
    ],
)
def test_a_file_that_is_not_its_own_is_refused(ours: Path, statement: str, why: str) -> None:
    change(ours.with_name("copy"), statement)
    refused(ours, why)


def refused(config: Path, why: str) -> None:
    """Restoring `copy` fails with a reason and changes nothing."""
    database = config.with_name("gateway.sqlite")
    before = database.read_bytes(), sorted(one.name for one in config.parent.iterdir())
    said = command(config, "restore", str(config.with_name("copy")), status=1)
    assert why in said
    assert "not restored" in said or "stop the gateway" in said
    names = sorted(one.name for one in config.parent.iterdir() if not one.name.endswith(".lock"))
    assert (database.read_bytes(), names) == (
        before[0],
        [name for name in before[1] if not name.endswith(".lock")],
    )


def test_a_damaged_or_foreign_file_is_refused(ours: Path) -> None:
    copy = ours.with_name("copy")
    whole = copy.read_bytes()
    # A page that nothing needs for the restore itself: only who reads all of it finds it.
    ((page,),) = rows(copy, "select rootpage from sqlite_master where name = 'replays'")
    copy.write_bytes(whole[: (page - 1) * 4096] + bytes(4096) + whole[page * 4096 :])
    refused(ours, "the backup is damaged: ")
    copy.write_text("no database at all")
    refused(ours, "not a database")
    copy.write_bytes(whole)
    copy.with_name("copy-wal").write_bytes(b"x")
    refused(ours, "log beside it")


def test_nothing_is_restored_under_a_running_gateway(ours: Path) -> None:
    claim = Claim(ours.with_name("gateway.sqlite"))
    assert claim.take()
    refused(ours, f"process {os.getpid()} has it")
    claim.give_back()
    assert "no such file" in command(ours, "restore", str(ours.with_name("no")), status=2)


def test_a_command_that_is_taken_along_stays_its_lamps(tmp_path: Path) -> None:
    """node_no is each file's own: a new card may have numbered the nodes otherwise."""
    path, copy = tmp_path / "g.sqlite", tmp_path / "copy"
    ids = [LAMP_ID, NODE_ID, "a4cf12000003"]

    async def live(file: Path, order: list[str], commands: list[list[Any]]) -> None:
        store = Store(file)
        await store.open()
        add = "insert into nodes (node_id, role) values (?,'lamp')"
        await store.write([(add, [node_id]) for node_id in order])
        insert = (
            "insert into commands values (?,?,(select node_no from nodes where node_id = ?),"
            "40,1000,60,'a boot',99000,?,null)"
        )
        await store.write([(insert, row) for row in commands])
        await store.close()

    asyncio.run(live(copy, ids[:2], [[1, "old", LAMP_ID, "sent"]]))
    rows_now = [[n, f"for {one}", one, "sent"] for n, one in enumerate(reversed(ids), 7)]
    rows_now.append([10, "malformed", None, "done"])
    asyncio.run(live(path, ids[::-1], rows_now))
    restore.restore(path, copy, {})
    found = rows(
        path,
        "select command_id, node_id, role from commands left join nodes using (node_no) "
        "order by command_no",
    )
    assert found == [
        ("old", LAMP_ID, "lamp"),
        *((f"for {one}", one, "lamp") for one in reversed(ids)),
        ("malformed", None, None),
    ]


def test_the_next_start_says_so(ours: Path) -> None:
    said = json.loads(command(ours, "restore", str(ours.with_name("copy")), "--json"))

    async def story() -> None:
        async with Running(ours) as gateway:
            (event,) = gateway.events("backup restored")
            assert event["gw_epoch"] == said["gw_epoch"]
            assert event["before"] == said["before"]
            now = json.loads(await asyncio.to_thread(command, ours, "status", "--json"))
            assert [node["held"] for node in now["nodes"]] == [True]
        ours.with_name("gateway.sqlite.restoring").write_bytes(b"cut short")
        async with Running(ours) as gateway:
            assert len(gateway.events("backup restored")) == 1
            assert len(gateway.events("a restore was cut short: the old database stands")) == 1

    asyncio.run(asyncio.wait_for(story(), 60))


# Restores in forks of one process, each killed at another of the steps that touch files; the
# interpreter's audit events say when such a step begins.
_KILLER = """
import os, signal, sys
from kerb_gateway.cli import app
left, folder = [0], sys.argv[1]

def step(event, arguments):
    if left[0] and event in ("open", "os.rename", "os.remove", "sqlite3.connect", "os.listdir"):
        if any(folder in str(one) for one in arguments):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(step)
for line in sys.stdin:
    n, *words = line.split()
    pid = os.fork()
    if pid == 0:
        sys.stdout = open(os.devnull, "w")
        left[0] = int(n)
        app(words)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_killed_at_every_step_the_old_or_the_new_one_is_there(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()

    async def begin() -> str:
        parts = await lived(start / "gateway.sqlite")
        await parts.ledger.outbox.write_mark()
        # Left with its log, as by a kill: a copy of what lies there while it is open.
        for name in ("gateway.sqlite", "gateway.sqlite-wal", "copy"):
            shutil.copy(start / name, tmp_path / f"kept {name}")
        epoch = parts.store.gw_epoch
        await parts.store.close()
        return epoch

    old = asyncio.run(begin())
    killer = subprocess.Popen(
        [sys.executable, "-c", _KILLER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert killer.stdin is not None
    assert killer.stdout is not None
    ends = []
    for n in range(1, 80):
        folder = tmp_path / f"try{n}"
        folder.mkdir()
        for name in ("gateway.sqlite", "gateway.sqlite-wal", "copy"):
            shutil.copy(tmp_path / f"kept {name}", folder / name)
        config = write_config(folder)
        killer.stdin.write(f"{n} restore {folder / 'copy'} --config {config}\n")
        killer.stdin.flush()
        status = int(killer.stdout.readline())
        ends.append(asyncio.run(opened_after(folder, old)))
        if status == 0:
            break
        assert status == -signal.SIGKILL
    killer.stdin.close()
    killer.wait(10)
    assert ends.count("old") > 5
    assert ends.count("new") > 3
    assert ends == sorted(ends, reverse=True)  # once it counts, it counts at each later step


async def opened_after(folder: Path, old: str) -> str:
    """Open what a cut restore left; returns which one it is, after a look at both."""
    database = folder / "gateway.sqlite"
    store = Store(database)
    await store.open()
    (count,) = (await store.query("select count(*) from readings"))[0]
    is_old = store.gw_epoch == old
    assert count == (6 if is_old else 3)
    assert (await store.query("select count(*) from restores"))[0][0] == (0 if is_old else 1)
    await store.close()
    left = {one.name for one in folder.iterdir()} - {"copy", "key", "gateway.toml"}
    left -= {"gateway.sqlite", "gateway.sqlite.lock"}
    if is_old:
        assert left == set()
        return "old"
    kept = install.aside(database, 1)
    assert kept.name in left
    assert rows(kept, "select count(*) from readings") == [(6,)]  # its log has gone along
    assert backup.unsound(folder / "copy") is None
    return "new"


def test_a_generation_does_not_fall_behind_the_brokers() -> None:
    leases = Leases("gw1", "now", {"node": 5}, lease_ms=60_000, unheard_ms=600_000)
    leases.received("gw1", Claims("before", 9, 60_000, {"node": 8, "other": 3}), 0)
    assert leases.generation("node") == 8
    leases.seen("node", 7)
    assert leases.generation("node") == 8
    leases.connected(0, kept=False)
    leases.heard("node", -40, 63_100)
    leases.tick(63_100)
    said = leases.tick(63_101)
    assert said is None or said.generations == {"node": 9}
    assert leases.generation("node") == 9
