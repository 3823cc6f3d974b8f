"""Dead letters in a person's hands: each is in one place, whatever dies at whatever moment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gateways import Running, Subscriber, command, fill, write_config
from kerb_gateway.service.protocol import NUMBER_MAX
from kerb_gateway.store import report
from kerb_sim.broker import Broker, find_mosquitto
from parts import EPOCH, NODE_ID
from streets import need

_ALL = "topic readwrite kerb/v1/#\n"
_NO_READINGS = (
    "topic read kerb/v1/#\ntopic write kerb/v1/north/gw1/+/event\n"
    "topic write kerb/v1/north/gw1/availability\n"
)


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{folder / 'gateway.sqlite'}?mode=ro", uri=True) as db:
        return db.execute(query).fetchall()


def buried(folder: Path, count: int) -> Path:
    """Return the configuration of a gateway with `count` dead letters, numbers 1 to count."""
    asyncio.run(fill(folder / "gateway.sqlite", count, buried=True))
    return write_config(folder)


def test_a_damaged_database_is_said_upstream_whoever_meets_it_and_dies(tmp_path: Path) -> None:
    config, file = buried(tmp_path, 4), tmp_path / "gateway.sqlite"
    with file.open("r+b") as content:
        content.write(os.urandom(4096))
    complaint = command(config, "letters", "list", status=1)
    assert "damaged; the gateway puts it aside when it starts" in complaint
    assert not list(tmp_path.glob("*.damaged-*"))

    async def story() -> None:
        async with Running(config) as gateway:
            await gateway.end(signal.SIGKILL)
            await gateway.start()
        said = gateway.events("damaged database put aside, begun anew")
        assert [one["file"] for one in said] == ["gateway.sqlite.damaged-1"] * 2

    asyncio.run(story())
    alarms = rows(tmp_path, "select payload from outbox where kind = 'message'")
    assert [json.loads(row[0])["what"] for row in alarms] == ["damaged database put aside"]
    assert rows(tmp_path, "select value from meta where key = 'put_aside'") == []


def test_letters_are_listed_replayed_and_dropped_while_no_gateway_runs(tmp_path: Path) -> None:
    config = buried(tmp_path, 4)
    listed = json.loads(command(config, "letters", "list", "--json"))["letters"]
    assert [one["outbox_no"] for one in listed] == [1, 2, 3, 4]
    assert listed[0]["id"] == f"{NODE_ID}/{EPOCH}/1"
    assert listed[0]["reason"] == "0x87"
    assert f"{NODE_ID}/{EPOCH}/4" in command(config, "letters", "list")
    dropped = command(config, "letters", "drop", "2", "--why", "a test reading")
    assert dropped.startswith("1 dropped")
    replayed = json.loads(command(config, "letters", "replay", "3", "--json"))["replayed"]
    new_no = replayed["3"]
    assert new_no > 8  # four readings, their four loss records: a number is used once
    assert "2: was dropped already" in command(config, "letters", "replay", "2", status=1)
    assert "3: was replayed already" in command(
        config, "letters", "drop", "3", "--why", "x", status=1
    )
    assert "9: no such dead letter" in command(config, "letters", "replay", "1", "9", status=1)
    assert rows(tmp_path, "select outbox_no from dead_letters") == [(1,), (4,)]
    (row,) = rows(tmp_path, f"select kind, row_no from outbox where outbox_no = {new_no}")
    assert row == ("reading", 3)
    assert rows(
        tmp_path, "select outbox_no, ended, new_no, seq, why from ended_letters order by outbox_no"
    ) == [(2, "dropped", None, 2, "a test reading"), (3, "replayed", new_no, 3, None)]
    assert rows(tmp_path, "select distinct who from ended_letters") != [(None,)]
    said = rows(tmp_path, "select payload from outbox where kind = 'message'")
    events = [json.loads(payload) for (payload,) in said]
    losses = {one["first_seq"]: one["id"] for one in events if one["kind"] == "loss"}
    (gone,) = [one for one in events if one["kind"] == "dropped"]
    assert (gone["seq"], gone["letter_no"], gone["why"]) == (2, 2, "a test reading")
    (found,) = [one for one in events if one["kind"] == "found"]
    assert (found["of"], found["first_seq"], found["last_seq"]) == (losses[3], 3, 3)
    with report.opened(tmp_path / "gateway.sqlite") as connection:
        (account,) = report.streams(connection)
    assert (account.refused, account.queued, account.delivered) == (3, 1, 0)
    assert account.unexplained == 0


def test_mistakes_get_a_sentence(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert "no such file, and no gateway runs" in command(config, "letters", "list", status=1)
    buried(tmp_path, 1)
    assert "either numbers or --all" in command(config, "letters", "replay", status=2)
    assert "1 to 200" in command(config, "letters", "drop", "1", "--why", "", status=2)
    assert command(config, "letters", "replay", "--all").startswith("1 replayed")
    assert command(config, "letters", "list") == "no dead letters\n"
    assert command(config, "letters", "replay", "--all").startswith("0 replayed")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("NUMBERS", ["letters", "replay", "{}"]),
        ("NUMBERS", ["letters", "drop", "{}", "--why", "x"]),
        ("--from", ["replay", "--from", "{}", "--to", "1"]),
        ("--to", ["replay", "--from", "1", "--to", "{}"]),
    ],
)
def test_a_number_that_none_can_be_is_a_mistake(
    tmp_path: Path, field: str, words: list[str]
) -> None:
    config = buried(tmp_path, 1)
    for number in (NUMBER_MAX + 1, 99999999999999999999):
        said = command(config, *(word.format(number) for word in words), status=2)
        assert said == f"kerb-gateway: {field} = {number}: at most {NUMBER_MAX}\n"
    command(config, *(word.format(NUMBER_MAX) for word in words), status=1)


def test_a_reason_that_is_no_text_is_a_mistake(tmp_path: Path) -> None:
    config = buried(tmp_path, 1)
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "kerb_gateway", "letters", "drop", "1"),
            *("--why", b"caf\xe9", "--config", config),
        ],
        capture_output=True,
        timeout=60,
    )
    why = b"--why = 'caf\\udce9': is not UTF-8; say it in other characters"
    assert answer.stderr == b"kerb-gateway: " + why + b"\n"
    assert answer.returncode == 2
    assert rows(tmp_path, "select count(*) from dead_letters") == [(1,)]


# Runs the real command in forks of one process that has everything imported. sqlite3 is told to
# end the process (SIGKILL) when it comes to the n-th statement of the writing transactions; the
# first n at which nothing is killed ends the story.
_KILLER = """
import os, signal, sqlite3, sys
real, left, writing = sqlite3.connect, [0], [False]

def trace(statement):
    writing[0] = writing[0] or statement.startswith("begin immediate")
    if writing[0]:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def connect(*arguments, **more):
    connection = real(*arguments, **more)
    connection.set_trace_callback(trace)
    return connection

sqlite3.connect = connect
from kerb_gateway.cli import app

for line in sys.stdin:
    n, words = line.split(" ", 1)
    pid = os.fork()
    if pid == 0:
        left[0] = int(n)
        sys.stdout = open(os.devnull, "w")
        app(words.split())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_killed_at_every_statement_each_letter_is_in_one_place(tmp_path: Path) -> None:
    config = buried(tmp_path, 3)
    killer = subprocess.Popen(
        [sys.executable, "-c", _KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert killer.stdin is not None
    assert killer.stdout is not None
    kills = 0
    for words in ("letters replay 1", "letters drop 2 --why gone", "letters replay --all"):
        for n in range(1, 60):
            killer.stdin.write(f"{n} {words} --config {config}\n")
            killer.stdin.flush()
            status = int(killer.stdout.readline())
            in_one_place(tmp_path)
            if status == 0:
                break
            if status == 1:  # an earlier try was killed after its commit: "replayed already"
                break
            assert status == -signal.SIGKILL
            kills += 1
    killer.stdin.close()
    killer.wait(10)
    assert kills > 20
    assert rows(tmp_path, "select count(*) from dead_letters") == [(0,)]
    assert rows(tmp_path, "select outbox_no, ended from ended_letters order by 1") == [
        (1, "replayed"),
        (2, "dropped"),
        (3, "replayed"),
    ]


def in_one_place(folder: Path) -> None:
    """Check that each of the letters is dead, or out again once, or dropped, and recorded so."""
    dead = {no for (no,) in rows(folder, "select outbox_no from dead_letters")}
    ended = dict(rows(folder, "select outbox_no, ended from ended_letters"))
    sent = [
        no
        for (no,) in rows(
            folder, "select row_no from outbox where kind = 'reading' and topic > ''"
        )
    ]
    texts = rows(folder, "select payload from outbox where kind = 'message'")
    said = [json.loads(text) for (text,) in texts]
    kinds = [(one["kind"], one.get("seq") or one.get("first_seq")) for one in said]
    assert len(sent) == len(set(sent))
    assert dead | set(ended) == {1, 2, 3}
    assert not dead & set(ended)
    assert {no for no, how in ended.items() if how == "replayed"} == set(sent)
    for no, how in ended.items():
        assert kinds.count(("found" if how == "replayed" else "dropped", no)) == 1


def taken_back(events: list[dict[str, Any]]) -> set[str]:
    """Return the ids of the losses that were taken back; an event may come twice, others too."""
    return {one["of"] for one in events if one["kind"] == "found"}


def test_a_broker_that_refuses_and_repents(tmp_path: Path) -> None:
    """Real mosquitto that forbids readings; the gateway dies while letters go out."""
    need("mosquitto", find_mosquitto())
    count = 250
    asyncio.run(fill(tmp_path / "gateway.sqlite", count, buried=False))
    access = tmp_path / "access"
    access.write_text(_NO_READINGS)
    os.chmod(access, 0o600)

    async def story() -> None:
        # mosquitto 2.0.11 hangs up on whom it refuses without a queue limit, and with
        # persistence it even crashes.
        limits = f"acl_file {access}\npersistence false\nmax_queued_messages 100000\n"
        broker = Broker(tmp_path / "broker", extra=limits)
        await broker.start()
        config = write_config(tmp_path, broker.port)

        async def operator(*words: str) -> str:
            return await asyncio.to_thread(command, config, *words)

        gateway = Running(config)
        async with Subscriber(tmp_path / "heard.jsonl", broker.port) as heard:
            await gateway.start()
            refused = await heard.until("event", count)
            assert {one["reason"] for one in refused} == {"refused"}
            assert heard.payloads("reading") == []
            access.write_text(_ALL)
            broker.reload()
            broker_log = tmp_path / "broker" / "broker.log"
            while "Reloading config" not in broker_log.read_text():
                await asyncio.sleep(0.05)
            first = json.loads(await operator("letters", "replay", "1", "2", "--json"))
            assert set(first["replayed"]) == {"1", "2"}
            assert {one["seq"] for one in await heard.until("reading", 2)} == {1, 2}
            words = ("letters", "replay", "--all", "--config", str(config))
            asking = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kerb_gateway", *words,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            while rows(tmp_path, "select count(*) from ended_letters")[0][0] < 100:
                await asyncio.sleep(0.002)
            await gateway.end(signal.SIGKILL)
            await asking.wait()
            await gateway.start()
            await operator("letters", "replay", "--all")
            await heard.until("reading", count)
            while len(taken_back(heard.payloads("event"))) < count:
                await asyncio.sleep(0.05)
            await gateway.end(signal.SIGTERM)
            seqs = [one["seq"] for one in heard.payloads("reading")]
            assert set(seqs) == set(range(1, count + 1))
            found = taken_back(heard.payloads("event"))
            assert found == {one["id"] for one in refused}
        await broker.stop()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert rows(tmp_path, "select count(*) from dead_letters") == [(0,)]
    sent = "select row_no, count(*) as n from outbox where kind = 'reading' group by 1"
    assert (
        rows(tmp_path, f"select * from ({sent}) where n != 2") == []
    )  # sent once, and once again: never a third time


@pytest.mark.parametrize("payload", [b"", b"[", b"\xff", b'{"node": 1}'])
def test_a_letter_of_any_content_can_be_replayed(tmp_path: Path, payload: bytes) -> None:
    config = buried(tmp_path, 1)
    with sqlite3.connect(tmp_path / "gateway.sqlite") as db:
        db.execute("update dead_letters set payload = ?, row_no = 99", [payload])
    assert command(config, "letters", "replay", "--all").startswith("1 replayed")
    assert rows(tmp_path, "select count(*) from dead_letters") == [(0,)]
