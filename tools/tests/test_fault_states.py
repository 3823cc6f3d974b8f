"""Power-cut states of the store: the recorder, the model of a disk, and what the states show."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from kerb_tools.faults import oplog, scripted, states
from kerb_tools.faults.cuts import cuts
from kerb_tools.faults.disk import Disk
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.journal import Journal, Line
from kerb_tools.faults.judge import Judge, broken
from kerb_tools.faults.library.build import build, environment
from kerb_tools.faults.marks import FILE, Promise, follow, marks_in
from kerb_tools.faults.oplog import (
    CREATE,
    RENAME,
    SYNC,
    SYNC_DIRECTORY,
    TRUNCATE,
    UNLINK,
    WRITE,
    Change,
)
from kerb_tools.faults.outcome import Outcome, quantile
from kerb_tools.faults.record import Recording, record

SEED = 5
_ACTIONS = 12


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("library"))
    except FaultsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def in_python(code: str, extra: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", code], env=os.environ | extra, check=True, timeout=60)


def replayed(changes: list[Change]) -> dict[str, bytes]:
    """Return the files after all changes, synced or not."""
    disk = Disk()
    for change in changes:
        disk.take(change)
    return disk.after([(one, one.change) for one in disk.pending])


def test_the_recording_is_what_the_process_wrote(tmp_path: Path, library: Path) -> None:
    """SQLite, plain files, a rename, a truncation and a removal: replayed, the same bytes."""
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    code = f"""
import os, sqlite3
os.chdir({str(store)!r})
here = os.getcwd()
db = sqlite3.connect(here + "/a.sqlite", isolation_level=None)
db.execute("pragma journal_mode = wal")
db.execute("create table t (x)")
for n in range(20):
    db.execute("insert into t values (?)", ["x" * 3000])
with open(here + "/one", "wb") as f:
    f.write(b"abcdef")
    f.truncate(3)
with open(here + "/one", "ab") as f:
    f.write(b"gh")
os.rename(here + "/one", here + "/two")
open(here + "/gone", "wb").close()
os.unlink(here + "/gone")
with open(here + "/room", "wb") as f:
    os.posix_fallocate(f.fileno(), 0, 5000)
os._exit(0)
"""
    in_python(code, environment(library, store, log=log))
    there = {
        path.name: path.read_bytes() for path in store.iterdir() if not path.name.endswith("-shm")
    }
    assert replayed(oplog.read(log)) == there
    assert there["two"] == b"abcgh"
    assert "a.sqlite-wal" in there


def test_a_recording_that_is_cut_short_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"w\x01\x00\x00\x05\x00\x00\x00" + bytes(8) + b"fabc")
    with pytest.raises(FaultsError, match="middle of a record"):
        oplog.read(tmp_path / "log")


def test_a_sync_covers_its_file_and_nothing_else() -> None:
    disk = Disk()
    for change in (
        Change(CREATE, "a"),
        Change(CREATE, "b"),
        Change(SYNC_DIRECTORY, "."),
        Change(WRITE, "a", 0, b"one"),
        Change(WRITE, "b", 0, b"two"),
        Change(SYNC, "a"),
        Change(WRITE, "a", 3, b"more"),
    ):
        disk.take(change)
    assert disk.after([]) == {"a": b"one", "b": b""}
    assert [one.change.data for one in disk.pending] == [b"two", b"more"]


def test_names_and_contents_are_durable_apart() -> None:
    """A renamed file keeps its content; one whose entry was never synced is not there at all."""
    disk = Disk.holding({"a": b"old"})
    for change in (
        Change(RENAME, "a", data=b"aside"),
        Change(CREATE, "a"),
        Change(WRITE, "a", 0, b"new"),
        Change(SYNC, "a"),
    ):
        disk.take(change)
    assert disk.after([]) == {"a": b"old"}
    assert disk.after([(one, one.change) for one in disk.pending]) == {
        "a": b"new",
        "aside": b"old",
    }
    disk.take(Change(UNLINK, "aside"))
    disk.take(Change(SYNC_DIRECTORY, "."))
    assert disk.after([]) == {"a": b"new"}


def test_every_kind_of_cut_is_made() -> None:
    disk = Disk.holding({"a": bytes(8192)})
    rng = random.Random(1)
    hows: dict[str, int] = {}
    contents = set()
    for change in (
        Change(WRITE, "a", 0, b"1" * 4096),
        Change(WRITE, "a", 4096, b"2" * 4096),
        Change(WRITE, "a", 0, b"3" * 4096),
        Change(TRUNCATE, "a", 4096),
        Change(SYNC, "a"),
    ):
        disk.take(change)
        for cut in cuts(disk, rng):
            hows[cut.how] = hows.get(cut.how, 0) + 1
            contents.add(disk.after(cut.arrived)["a"])
    assert set(hows) == {
        "prefix", "nothing unsynced", "only the newest", "one dropped", "torn", "subset",
        "reordered",
    }  # fmt: skip
    assert b"3" * 512 + b"1" * 3584 + b"2" * 4096 in contents  # torn at a sector, over what was
    assert bytes(4096) + b"2" * 4096 in contents  # the first write dropped
    assert b"1" * 4096 + b"2" * 4096 in contents
    assert len(disk.after([])["a"]) == 4096


def test_a_part_of_the_power_cut_states_holds(tmp_path: Path, library: Path) -> None:
    """Lives, kills, a damaged file: every prefix and some subsets, opened by the real store."""
    found = Outcome()
    for seed in (4, 7):
        found.take(states.job(seed, 250, tmp_path))
    assert found.broken == 0, found.details
    assert found.count > 400
    assert found.counts["lives killed"] >= 1
    assert min(found.counts[f"states: {how}"] for how in ("prefix", "only the newest")) > 50


def judged(recording: Recording, folder: Path) -> list[str]:
    """Open every prefix and durable state of a recording; returns what was broken."""

    async def story() -> list[str]:
        judge = Judge(folder, scripted.nodes(3, SEED), SEED)
        found = []
        for moment in states.moments(recording, 0.0, SEED):
            sight = await judge.look(moment.files, go_on=False)
            found += broken(sight, moment.promise, moment.coming)
        return found

    return asyncio.run(story())


def before_a_sync(recording: Recording) -> int:
    """Return how many changes lie before the sync of the last commit."""
    changes = recording.changes
    marks = [index for index, one in enumerate(changes) if b"committed" in one.data]
    committed = [index for index in marks if changes[index].name == FILE][-1]
    return max(n for n in range(committed) if changes[n].kind == SYNC)


def test_killed_before_the_sync_and_then_the_power_goes(tmp_path: Path, library: Path) -> None:
    """The next life believes what it finds in the log: so it must be durable before it speaks."""
    whole = record(tmp_path / "whole", library, {}, seed=SEED, deaths=[None], actions=0)
    death = before_a_sync(whole)
    assert whole.changes[death - 1].kind == WRITE
    recording = record(tmp_path / "two", library, {}, seed=SEED, deaths=[death, None], actions=0)
    assert recording.kills == 1
    assert judged(recording, tmp_path / "state") == []


def test_a_store_without_its_last_transaction_is_found(tmp_path: Path, library: Path) -> None:
    """What the judge is for: syncs that the store asked for and the disk did not do."""
    honest = record(tmp_path / "r", library, {}, seed=SEED, deaths=[None], actions=_ACTIONS)
    lying = [one for one in honest.changes if one.kind != SYNC or one.name.endswith(".sqlite")]
    found = judged(Recording({}, lying, 0), tmp_path / "state")
    assert "not what was committed" in found


def test_a_promise_that_is_broken_is_said(tmp_path: Path) -> None:
    """An outbox number that comes back, an ack and a done mark beyond what is there."""

    async def look() -> list[str]:
        judge = Judge(tmp_path / "state", scripted.nodes(3, SEED), SEED)
        sight = await judge.look({}, go_on=False)
        promise = Promise()
        for mark in (
            {
                "what": "opened",
                "gw_epoch": sight.gw_epoch,
                "fingerprint": sight.fingerprint,
                "done": 0,
            },
            {"what": "handed", "outbox_no": 9},
            {"what": "acked", "stream_no": 1, "seq": 3},
        ):
            promise = follow(promise, mark)
        sight.passed = [4]
        return broken(sight, promise, "")

    said = asyncio.run(look())
    assert len(said) == 3
    assert "stream 1: acked up to 3, which is not there" in said


def test_half_a_transaction_is_seen_in_the_tables(tmp_path: Path, library: Path) -> None:
    """A reading whose outbox row is missing: wrong whatever was promised."""
    whole = record(tmp_path / "r", library, {}, seed=SEED, deaths=[None], actions=3 * _ACTIONS)
    files = replayed([one for one in whole.changes if marks_in(one) is None])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with sqlite3.connect(tmp_path / "gateway.sqlite") as db:
        db.execute(
            "delete from outbox where kind = 'reading' and row_no = "
            "(select max(reading_no) from readings)"
        )
    db.close()
    content = {"gateway.sqlite": (tmp_path / "gateway.sqlite").read_bytes()}
    judge = Judge(tmp_path / "state", scripted.nodes(3, SEED), SEED)
    sight = asyncio.run(judge.look(content, go_on=False))
    assert sight.wrong == ["a reading without its outbox row: 1"]


def test_the_journal_goes_on_and_forgets_other_trees(tmp_path: Path) -> None:
    outcome = Outcome(count=3, samples={"recovery": [1.0, 2.0, 9.0]})
    Journal(tmp_path, "states", "one").append(Line(4, 1.0, outcome))
    with (tmp_path / "states.jsonl").open("a") as file:
        file.write('{"tree": "one", "se')  # ended in the middle of a line
    assert [line.seed for line in Journal(tmp_path, "states", "one").read(1)] == [4]
    assert Journal(tmp_path, "states", "one").read(5) == []
    assert Journal(tmp_path, "states", "two").read(1) == []
    assert quantile(outcome.samples["recovery"], 0.5) == 2.0
    assert quantile(outcome.samples["recovery"], 0.99) == 9.0
