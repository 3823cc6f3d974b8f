"""A part of the campaign on whole streets, and what the streets' own parts do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path

import pytest
from kerb_check.model import SourceError
from kerb_tools.faults import cli, report
from kerb_tools.faults.disturbances import (
    DISTURBANCES,
    disk_full,
    failed_sync,
    half_open,
)
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.journal import Line
from kerb_tools.faults.kinds import run_job
from kerb_tools.faults.library.build import build, environment
from kerb_tools.faults.library.control import Control
from kerb_tools.faults.outcome import Outcome
from kerb_tools.faults.proxy import Proxy
from kerb_tools.faults.recovery import Fault, measure
from kerb_tools.faults.rig import Needs
from kerb_tools.faults.runner import tied_pool
from kerb_tools.faults.simulate import BRANCH
from kerb_tools.faults.tether import descendants
from kerb_tools.simulate.coverage import BRANCHES
from kerb_tools.simulate.long import LEAST_TAKEN, LONG_YEARS


def seed_of(disturbance: object) -> int:
    """Return the first seed whose job has this disturbance."""
    return 1 + list(DISTURBANCES).index(disturbance)  # type: ignore[arg-type]


def test_a_part_of_kills_disturbances_and_flash_cuts(tmp_path: Path) -> None:
    """Side by side: kills at random moments, a full and a failing disk, a half-open connection."""
    try:
        Needs.found()
        build(tmp_path)
    except FaultsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    jobs = [
        ("kills", 3, 6),
        ("disturb", seed_of(disk_full), 1),
        ("disturb", seed_of(failed_sync), 1),
        ("disturb", seed_of(half_open), 1),
        ("flash", 2, 4),
    ]
    found = Outcome()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(jobs), mp_context=context) as pool:
        futures = [pool.submit(run_job, *job, str(tmp_path / job[0])) for job in jobs]
        for future in futures:
            found.take(future.result())
    assert found.broken == 0, found.details
    assert found.count >= 6 + 3 + 4
    assert found.counts["unaccounted"] == 0
    assert found.counts["replays accepted"] == 0
    lines = {"kills": [Line(1, 1.0, found)]}
    never = {bar.name: bar.ok for bar in report.result("", 1, lines, {"kills": 1}).bars}
    assert never["kills_unaccounted"]
    assert never["kills_replays_accepted"]
    assert found.counts["cuts: deep_sleep"] > 4
    assert {"disk full, ms", "half-open connection, ms"} <= found.samples.keys()


def test_many_years_must_have_taken_each_branch_often() -> None:
    """The report says how often; a branch that no year took shows as a bar that is missed."""
    year = Outcome(count=1, counts={"readings": 710_000})
    for name in BRANCHES:
        year.add(f"{BRANCH}{name}", LEAST_TAKEN // LONG_YEARS + 1)
    lines = [Line(seed, 1.0, year) for seed in range(LONG_YEARS)]

    def bars() -> dict[str, bool]:
        made = report.result("", 1, {"simulate": lines}, {"simulate": len(lines)})
        return {bar.name.removeprefix("simulate_"): bar.ok for bar in made.bars}

    assert bars()["branch_taken_least"]
    assert bars()["readings_a_gateway_year"]
    del year.counts[f"{BRANCH}{BRANCHES[0]}"]
    year.counts["readings"] = 690_000
    assert not bars()["branch_taken_least"]
    assert not bars()["readings_a_gateway_year"]
    del lines[0]
    assert "branch_taken_least" not in bars()


def test_switches_act_on_the_directory_and_on_nothing_else(tmp_path: Path) -> None:
    """A sync that fails, a write that fails, and a wall clock that is wrong, in a real process."""
    try:
        library = build(tmp_path)
    except FaultsError as error:
        pytest.skip(str(error))
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    control = Control(tmp_path / "control")
    code = f"""
import json, os, time
def tried(path, act):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        act(fd)
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(fd)
print(json.dumps([
    tried({str(inside / "a")!r}, os.fsync), tried({str(outside / "a")!r}, os.fsync),
    tried({str(inside / "b")!r}, lambda fd: os.write(fd, b"x")),
    time.time_ns() // 1_000_000, int(time.time()), time.clock_gettime(time.CLOCK_BOOTTIME)]))
"""

    def look() -> list[float]:
        extra = environment(library, inside, control=tmp_path / "control")
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | extra, capture_output=True, check=True
        )
        values: list[float] = json.loads(done.stdout)
        return values

    assert look()[:3] == [0, 0, 0]
    assert control.syncs == 1
    control.sync_error(errno.EIO)
    control.write_error(errno.ENOSPC)
    control.wall_offset(-20 * 365 * 86400 * 1000 - 250)
    sync_in, sync_out, write_in, wall_ms, wall_s, boottime_s = look()
    assert (sync_in, sync_out, write_in) == (errno.EIO, 0, errno.ENOSPC)
    years = (time.time() * 1000 - wall_ms) / (365 * 86400 * 1000)
    assert 19.9 < years < 20.1
    assert abs(wall_ms / 1000 - wall_s) < 2
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - boottime_s < 60
    control.close()


def test_a_half_open_connection_stays_silent_and_a_new_one_is_carried() -> None:
    async def story() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        proxy = Proxy(server.sockets[0].getsockname()[1])
        await proxy.start()

        async def answer(link: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
            link[1].write(b"hello")
            return await asyncio.wait_for(link[0].read(100), 0.5)

        old = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await answer(old) == b"hello"
        proxy.half_open()
        with pytest.raises(TimeoutError):
            await answer(old)  # neither an answer nor an end
        new = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await answer(new) == b"hello"
        new[1].close()
        await proxy.stop()
        server.close()

    asyncio.run(story())


def test_recovery_counts_from_the_fault_to_the_next_new_reading(tmp_path: Path) -> None:
    def row(t_s: float, node: str, seq: int) -> dict[str, object]:
        payload = {"node": node, "epoch": 1, "seq": seq}
        return {"t_s": t_s, "topic": "kerb/v1/s/g/n/reading", "payload": payload, "text": None}

    rows: list[dict[str, object]] = [{"type": "begin", "t_s": 0.0}]
    rows += [row(1.0, "aa", 1), row(3.0, "aa", 1), row(4.0, "bb", 1), row(6.5, "aa", 2)]
    rows += [{"type": "end", "t_s": 9.0}]
    (tmp_path / "subscriber.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    outcome = Outcome()
    faults = [
        Fault("gateway killed", 2.0, 2.5),  # what comes at 3.0 was there before
        Fault("bin killed", 2.0, 2.5, frozenset({"aa"})),
        Fault("bin killed", 7.0, 7.0, frozenset({"aa"})),
    ]
    measure(tmp_path, faults, outcome)
    assert outcome.samples == {"gateway killed, ms": [2000], "bin killed, ms": [4500]}
    assert outcome.counts == {"recoveries not seen": 1}
    (tmp_path / "subscriber.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(SourceError):
        measure(tmp_path, faults, outcome)


def test_the_command_goes_on_reports_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs of the same budget: the second finds it met; the page and the JSON hold it."""
    arguments = ["flash", "--budget", "1", "--seed", "3", "--work", str(tmp_path), "--json"]
    try:
        Needs.found()
    except FaultsError as error:
        pytest.skip(str(error))
    assert cli.main(arguments) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = (tmp_path / "flash.jsonl").read_text()
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first
    assert (tmp_path / "flash.jsonl").read_text() == lines
    assert first["figures"]["flash"] == 1
    assert {bar["name"] for bar in first["bars"]} == {"flash", "flash_broken"}
    page = (tmp_path / "report.md").read_text()
    assert f"| in all | {first['figures']['flash']:,} |" in page
    assert (tmp_path / "flash-counts.svg").exists()
    broken = Outcome(count=1, broken=1, details=["a reading is gone"])
    row = json.loads(lines) | {"seed": 2, "outcome": broken.table()}
    (tmp_path / "flash.jsonl").write_text(json.dumps(row) + "\n")
    assert cli.main([*arguments[:-1], "--seed", "2"]) == 1
    assert "flash, seed 2: a reading is gone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["flash", "--budget", "0"])


def mentioned(word: str) -> dict[int, str]:
    """Return the command lines of the processes that mention a word."""
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                line = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
            if word in line:
                found[int(path.name)] = line
    return found


def ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"  # dead; who reads that is not its killer's business


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(ready: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children hear SIGINT: what a shell runs in the background ignores it, and so do they."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_campaign(tmp_path: Path, how: signal.Signals) -> None:
    """Ended in any way, with a street of gateway, broker and boards running: all of it ends."""
    try:
        Needs.found()
    except FaultsError as error:
        pytest.skip(str(error))
    runner = subprocess.Popen(
        [sys.executable, "-m", "kerb_tools", "faults", "kills", "--budget", "40",
         "--work", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: "kerb_gateway run" in str(mentioned(str(tmp_path))), 30)
        every = descendants(runner.pid)
        runner.send_signal(how)
        said = runner.communicate(timeout=30)[1].decode()
        wait_until(lambda: all(ended(pid) for pid in every), 30)
        wait_until(lambda: not mentioned(str(tmp_path)), 30)
        wait_until(lambda: not list(tmp_path.glob("kills-*")), 30)  # nor does its folder
    finally:
        kill([runner.pid, *descendants(runner.pid), *mentioned(str(tmp_path))])
    if how != signal.SIGKILL:
        assert runner.returncode == 130
        assert "goes on from here" in said
        assert "Traceback" not in said


def assert_nothing_stays(interrupted: Callable[[], None], name: str, pids: list[int]) -> None:
    """pids: of the workers, to be ended whatever happens; filled by what is interrupted."""
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        wait_until(lambda: not mentioned(name), 30)
    finally:
        kill([*pids, *mentioned(name)])


def test_an_orphan_of_a_job_ends_too(tmp_path: Path) -> None:
    """What a process that has ended itself left behind, in a session of its own."""
    name = str(tmp_path / "orphan")
    Path(name).write_text("sleep 600; exit")
    orphan = ["sh", "-c", f"setsid sh {name} & exit 0"]

    def interrupted() -> None:
        with tied_pool(1) as pool:
            pool.submit(subprocess.run, orphan, check=True).result()
            wait_until(lambda: bool(mentioned(name)), 30)
            raise KeyboardInterrupt

    assert_nothing_stays(interrupted, name, [])


def test_the_pool_ends_no_worker_before_what_it_started(tmp_path: Path) -> None:
    """One worker is quick to end, and the pool then asks the other to, which is slow (stopped)."""
    name = str(tmp_path / "left")
    Path(name).write_text("sleep 600; exit")
    pids: list[int] = []

    def go_on() -> None:
        quick, slow = pids
        try:
            wait_until(lambda: ended(quick) and asked_to_end(slow), 30)
        finally:
            os.kill(slow, signal.SIGCONT)

    def interrupted() -> None:
        with tied_pool(2) as pool:
            orphan = ["sh", "-c", f"sh {name} & exit 0"]
            jobs = [pool.submit(subprocess.run, orphan, check=True), pool.submit(os.getpid)]
            wait(jobs)
            pids.extend(one.pid or 0 for one in multiprocessing.active_children())
            wait_until(lambda: any(descendants(pid) for pid in pids), 30)
            pids.sort(key=lambda pid: bool(descendants(pid)))
            os.kill(pids[1], signal.SIGSTOP)
            pool.submit(time.sleep, 600)  # one that the pool has to call broken
            threading.Thread(target=go_on).start()
            raise KeyboardInterrupt

    assert_nothing_stays(interrupted, name, pids)


def asked_to_end(pid: int) -> bool:
    """Return whether a SIGTERM waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(row.split()[1] for row in status.splitlines() if row.startswith("ShdPnd"))
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def test_sqlite_is_the_installed_one(tmp_path: Path) -> None:
    """What the campaign's own connection says is what the gateway's says: nothing is replaced."""
    code = "import sqlite3; print(sqlite3.sqlite_version)"
    try:
        extra = environment(build(tmp_path), tmp_path)
    except FaultsError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | extra, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == sqlite3.sqlite_version
