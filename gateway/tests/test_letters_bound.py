"""Dead letters are bounded by number and by room; none goes without a word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateways import fill
from kerb_gateway.desk import Desk
from kerb_gateway.errors import StoreFull
from kerb_gateway.service.protocol import ReplayLetters
from kerb_gateway.store import report
from kerb_gateway.store.letters import Letters
from kerb_gateway.store.outbox import Outgoing
from kerb_gateway.store.replays import Replays
from kerb_gateway.store.retention import Retention
from parts import TOPICS, Parts, heard, log


def keeper(parts: Parts, said: Any = log, **bounds: int) -> Retention:
    chosen = {"max_bytes": 1 << 40, "keep_letters": 1000} | bounds
    return Retention(
        parts.store, parts.ledger, parts.clock, said,
        commit=parts.ingest.commit_or_full, keep_s=1e9, **chosen,
    )  # fmt: skip


def unexplained(path: Path) -> tuple[int, int]:
    """Return (refused, unexplained) of the only stream."""
    with report.opened(path) as connection:
        (account,) = report.streams(connection)
    assert account.delivered + account.queued == 0
    return account.refused, account.unexplained


def test_the_oldest_beyond_the_number_go_and_upstream_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        await fill(tmp_path / "g.sqlite", 450, buried=True)
        parts = await Parts.open(tmp_path / "g.sqlite")
        said: list[str] = []
        await keeper(parts, lambda event, **_: said.append(event), keep_letters=20).hour()
        left = await parts.column("select outbox_no from dead_letters")
        assert left == list(range(431, 451))
        assert said.count("dead letters dropped") == 3  # in bites
        sent = await parts.column("select payload from outbox where kind = 'message'")
        events = [p for p in map(json.loads, sent) if p["kind"] == "dropped"]
        assert [(p["letter_no"], p["seq"]) for p in events] == [(n, n) for n in range(1, 431)]
        assert {(p["who"], p["why"]) for p in events} == {
            ("retention", "more than 20 dead letters")
        }
        assert parts.ledger.counters["dead letter given up: no room"] == 430
        # What tells of the ended ones is bounded too, and what it told still counts.
        assert await parts.column("select count(*), min(outbox_no) from ended_letters") == [20]
        await parts.store.close()

    asyncio.run(story())
    assert unexplained(tmp_path / "g.sqlite") == (450, 0)


def test_they_go_for_want_of_room_before_what_was_not_delivered(tmp_path: Path) -> None:
    async def story() -> None:
        await fill(tmp_path / "g.sqlite", 300, buried=True)
        parts = await Parts.open(tmp_path / "g.sqlite")
        outbox = parts.ledger.outbox
        for message in await outbox.after(outbox.read, 1000):
            outbox.ended(message.outbox_no)
        await parts.ledger.commit()
        for seq in range(301, 401):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        retention = keeper(parts, max_bytes=1 << 40)
        await retention.hour()
        used = await retention.used_bytes()
        await keeper(parts, max_bytes=used - 20_000).hour()
        assert 0 < (await parts.column("select count(*) from dead_letters"))[0] < 300
        assert await parts.column("select count(*) from losses where reason = 'retention'") == [0]
        await keeper(parts, max_bytes=1).hour()
        assert await parts.column("select count(*) from dead_letters") == [0]
        await parts.store.close()

    asyncio.run(story())


def test_a_broker_that_refuses_the_records_too_gets_no_chain_of_them(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        record = TOPICS.of("gateway", "event"), b'{"kind":"dropped","id":"dropped/x/1"}'
        for number in (1, 2, 3):
            parts.ledger.bury(Outgoing(number, *record), "0x87")
        await parts.ingest.commit()
        await keeper(parts, keep_letters=0).hour()
        assert await parts.column("select count(*) from dead_letters") == [0]
        assert await parts.column("select count(*) from outbox") == [0]
        assert await parts.column("select count(*) from ended_letters") == [0]
        assert parts.ledger.counters["dead letter given up: no room"] == 3
        await parts.store.close()

    asyncio.run(story())


_KILLED = """
import asyncio, os, signal, sys
left = int(sys.argv[2])

def trace(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

from pathlib import Path
from parts import Parts
from test_letters_bound import keeper

async def story():
    parts = await Parts.open(Path(sys.argv[1]))
    retention = keeper(parts, keep_letters=2)
    parts.store._connection.set_trace_callback(trace)
    await retention.hour()
    await parts.store.close()

asyncio.run(story())
"""


def test_killed_at_any_statement_each_letter_is_there_or_was_said(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "g.sqlite", 6, buried=True))
    path = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    kills = 0
    for n in range(1, 90, 7):
        answer = subprocess.run(
            [sys.executable, "-c", _KILLED, str(tmp_path / "g.sqlite"), str(n)],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        with contextlib.closing(sqlite3.connect(tmp_path / "g.sqlite")) as db:
            dead = {no for (no,) in db.execute("select outbox_no from dead_letters")}
            said = {
                no
                for (no,) in db.execute(
                    "select json_extract(payload, '$.letter_no') from outbox "
                    "where json_extract(payload, '$.kind') = 'dropped'"
                )
            }
        assert dead | said == {1, 2, 3, 4, 5, 6}
        assert not dead & said
        assert unexplained(tmp_path / "g.sqlite") == (6, 0)
        if answer.returncode == 0:
            break
        assert answer.returncode == -signal.SIGKILL, answer.stderr
        kills += 1
    assert kills > 2
    assert dead == {5, 6}


def test_a_full_disk_keeps_them(tmp_path: Path) -> None:
    """Nothing is given up that cannot be said: with no room for the record all stays."""

    async def story() -> None:
        await fill(tmp_path / "g.sqlite", 50, buried=True)
        parts = await Parts.open(tmp_path / "g.sqlite")
        retention = keeper(parts, keep_letters=0)
        (pages,) = await parts.column("pragma page_count")
        await parts.store.query(f"pragma max_page_count = {pages}")
        with contextlib.suppress(StoreFull):
            await retention.hour()
        dead = (await parts.column("select count(*) from dead_letters"))[0]
        events = [p for p in await parts.payloads() if p["kind"] == "dropped"]
        assert dead + len(events) == 50
        await parts.store.close()

    asyncio.run(story())


def test_a_letter_that_was_dealt_with_is_not_sent_again_from_its_old_row(tmp_path: Path) -> None:
    """The mark waits for an older row, and the gateway dies: number 2 has ended all the same."""

    async def story() -> None:
        await fill(tmp_path / "g.sqlite", 3, buried=False)
        parts = await Parts.open(tmp_path / "g.sqlite")
        rows = await parts.ledger.outbox.after(0, 10)
        for row in rows[1:]:
            parts.ledger.bury(row, "0x87")
            parts.ledger.outbox.ended(row.outbox_no)
        await parts.ingest.commit()
        letters = Letters(parts.store, parts.ledger, parts.clock)
        two, three = await letters.named([2, 3])
        again_no = letters.replay(two, "somebody")
        letters.drop(three, "somebody", "a test")
        await parts.ingest.commit()
        parts = await parts.again()
        outbox = parts.ledger.outbox
        assert outbox.done == 0
        sent = {row.outbox_no: row.reading for row in await outbox.after(0, 10)}
        assert [no for no, reading in sent.items() if reading is not None] == [1, again_no]
        assert await outbox.waiting() == len(sent)
        with report.opened(tmp_path / "g.sqlite") as connection:
            (account,) = report.streams(connection)
        assert (account.queued, account.refused, account.unexplained) == (2, 1, 0)
        for number in sent:
            outbox.ended(number)
        assert outbox.done == max(sent)
        await parts.store.close()

    asyncio.run(story())


def test_a_person_and_retention_never_pick_the_same_letter(tmp_path: Path) -> None:
    async def story() -> None:
        await fill(tmp_path / "g.sqlite", 50, buried=True)
        parts = await Parts.open(tmp_path / "g.sqlite")
        letters = Letters(parts.store, parts.ledger, parts.clock)
        begun = asyncio.Event()

        async def commit() -> None:
            begun.set()  # retention looks for the oldest letters next
            await parts.ingest.commit_or_full()

        async def ask() -> dict[str, Any]:
            await begun.wait()
            return await desk.answer(ReplayLetters(up_to=50), "somebody")

        retention = Retention(
            parts.store, parts.ledger, parts.clock, log,
            commit=commit, keep_s=1e9, max_bytes=1 << 40, letters=letters, keep_letters=25,
        )  # fmt: skip
        desk = Desk(letters, Replays(parts.store, parts.ledger), parts.ingest.commit)
        answer, _ = await asyncio.gather(ask(), retention.hour())
        dropped = [p["letter_no"] for p in await parts.payloads() if p["kind"] == "dropped"]
        assert sorted([*map(int, answer["replayed"]), *dropped]) == list(range(1, 51))
        await parts.store.close()

    asyncio.run(story())
