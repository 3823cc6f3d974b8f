"""Time on real files: contacts and anchors that outlive the process, NTP that comes after days."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from kerb_gateway.clock import Moment
from kerb_gateway.store.migrations import migrations
from kerb_gateway.timekeeper import NodeClock, Timekeeper
from kerb_gateway.timeline import STALE_MS, advert_age_ms
from kerb_wire.words import FLAG_SERVICE
from parts import EPOCH, NODE_ID, Parts, heard, record
from sqlite_utils import Database
from test_backfill import NodeInMemory, backfill_of, visit

TRUE_MS = 1_780_000_000_000  # wall time at the first boot's zero
DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
AGE_MS = advert_age_ms(2000)


class MovedClock:
    """A machine's clocks as a test sets them."""

    def __init__(self, boot_id: str, at_ms: int = 100_000) -> None:
        self.boot_id = boot_id
        self.at_ms = at_ms
        self.wall_less_boottime_ms = 0  # 1970
        self.quality = "none"

    def boottime_ms(self) -> int:
        return self.at_ms

    def now(self) -> Moment:
        wall_ms = self.at_ms + self.wall_less_boottime_ms
        return Moment(self.boot_id, self.at_ms, wall_ms, self.quality)

    def ntp(self, zero_ms: int) -> None:
        """NTP sets the clock; zero_ms: the true wall time at this boot's zero."""
        self.wall_less_boottime_ms, self.quality = zero_ms, "ntp"

    def jump(self, wall_less_boottime_ms: int) -> None:
        """Somebody sets the clock: the kernel takes back its word that it is right."""
        self.wall_less_boottime_ms, self.quality = wall_less_boottime_ms, "none"


def hear(parts: Parts, clock: MovedClock, seq: int, flags: int = 1) -> None:
    one = dataclasses.replace(heard(seq, flags=flags), boottime_ms=clock.at_ms)
    assert parts.ingest.advert(one).kind == "accepted"


async def times(parts: Parts) -> dict[int, dict[str, Any]]:
    """Return the time of each reading's message, as it would be sent now."""
    return {p["seq"]: p["time"] for p in await parts.payloads() if p["kind"] in ("fill", "lamp")}


async def anchors(parts: Parts) -> list[dict[str, Any]]:
    return [p for p in await parts.payloads() if p["kind"] == "anchor"]


def assert_within(time: dict[str, Any], truth_ms: int) -> None:
    assert time["utc_min_ms"] <= time["utc_ms"] <= time["utc_max_ms"]
    assert time["utc_min_ms"] <= truth_ms <= time["utc_max_ms"]


def test_ntp_after_days_resolves_what_was_stored_before(tmp_path: Path) -> None:
    """With a restart of the process in between, and one reading sent before anybody knew."""

    async def story() -> None:
        clock = MovedClock("one")
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        await parts.stream()
        clock.at_ms += 2 * STALE_MS
        hear(parts, clock, 1)
        await parts.ingest.commit()
        early = (await times(parts))[1]
        assert (early["quality"], early["utc_ms"]) == ("none", None)
        assert (early["t_min_ms"], early["t_max_ms"]) == (clock.at_ms - AGE_MS, clock.at_ms)
        made_ms = clock.at_ms - 700
        clock.at_ms += 3 * DAY_MS
        parts.ingest.time.look()
        await parts.ingest.commit()
        assert await anchors(parts) == []
        await parts.store.close()

        clock.ntp(TRUE_MS)
        again = await Parts.open(tmp_path / "g.sqlite", clock)
        again.ingest.time.look()
        again.ingest.time.look()  # once is enough
        await again.ingest.commit()
        (anchor,) = await anchors(again)
        assert anchor["offset_ms"] == TRUE_MS
        known = (await times(again))[1]
        assert known["quality"] == "anchored"
        assert_within(known, TRUE_MS + made_ms)
        # What was sent early is resolved by subtraction, from the anchor's message alone.
        half_ms = anchor["uncertainty_ms"] + anchor["drift_ppm"] * 3 * DAY_MS / 1e6
        assert abs(early["t_ms"] + anchor["offset_ms"] - TRUE_MS - made_ms) <= half_ms
        await again.store.close()

        third = await Parts.open(tmp_path / "g.sqlite", clock)
        assert (await times(third))[1] == known
        third.ingest.time.look()
        await third.ingest.commit()
        assert len(await anchors(third)) == 1
        await third.store.close()

    asyncio.run(story())


def test_jumps_by_years_change_neither_order_nor_times(tmp_path: Path) -> None:
    async def story() -> None:
        clock = MovedClock("one")
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        await parts.stream()
        clock.ntp(TRUE_MS)
        parts.ingest.time.look()
        truth = {}
        offsets = (TRUE_MS + 9 * YEAR_MS, TRUE_MS - 40 * YEAR_MS, 0, TRUE_MS + YEAR_MS)
        for seq, offset_ms in enumerate(offsets, 1):
            clock.jump(offset_ms)
            clock.at_ms += 900_000
            parts.ingest.time.look()
            hear(parts, clock, seq)
            truth[seq] = TRUE_MS + clock.at_ms - 700
            await parts.ingest.commit()
        sent = await times(parts)
        assert list(sent) == [1, 2, 3, 4]
        for seq, time in sent.items():
            assert time["quality"] == "anchored"
            assert_within(time, truth[seq])
        assert len(await anchors(parts)) == 1
        await parts.store.close()

    asyncio.run(story())


def test_a_step_of_ntp_and_a_day_are_worth_an_anchor(tmp_path: Path) -> None:
    async def story() -> None:
        clock = MovedClock("one")
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        clock.ntp(TRUE_MS - 3000)  # a server that is off
        parts.ingest.time.look()
        clock.ntp(TRUE_MS)
        parts.ingest.time.look()  # not within ten minutes, however it jumps
        clock.at_ms += 600_000
        parts.ingest.time.look()
        clock.at_ms += 600_000
        clock.ntp(TRUE_MS + 400)  # slewed, not stepped
        parts.ingest.time.look()
        clock.at_ms += DAY_MS
        parts.ingest.time.look()
        await parts.ingest.commit()
        assert [one["offset_ms"] - TRUE_MS for one in await anchors(parts)] == [-3000, 0, 400]
        await parts.store.close()

    asyncio.run(story())


def test_a_boot_without_ntp_is_bounded_by_its_neighbours(tmp_path: Path) -> None:
    """Three boots of the machine, the middle one without NTP; then what is known is sent."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        zeros = {"one": TRUE_MS, "two": TRUE_MS + 2 * DAY_MS, "three": TRUE_MS + 4 * DAY_MS}
        for seq, (boot_id, zero_ms) in enumerate(zeros.items(), 1):
            clock = MovedClock(boot_id)
            parts = await Parts.open(path, clock)
            await parts.stream()
            if boot_id != "two":
                clock.ntp(zero_ms)
            parts.ingest.time.look()
            clock.at_ms += DAY_MS
            hear(parts, clock, seq)
            await parts.ingest.commit()
            if boot_id == "two":
                open_end = (await times(parts))[2]
                assert open_end["quality"] == "range"
                assert open_end["utc_max_ms"] is None
                assert open_end["utc_min_ms"] <= zero_ms + clock.at_ms
            await parts.store.close()
        parts = await Parts.open(path, MovedClock("three", 2 * DAY_MS))
        sent = await times(parts)
        assert [sent[seq]["quality"] for seq in (1, 2, 3)] == ["ntp", "range", "ntp"]
        for seq, zero_ms in enumerate(zeros.values(), 1):
            assert_within(sent[seq], zero_ms + 100_000 + DAY_MS - 700)
        said = {one["boot_id"]: one for one in await anchors(parts)}
        assert said["two"]["quality"] == "range"
        assert said["two"]["offset_min_ms"] <= zeros["two"] <= said["two"]["offset_max_ms"]
        off_ms = abs(said["two"]["offset_ms"] - zeros["two"])
        assert off_ms <= said["two"]["uncertainty_ms"]
        await parts.store.close()

    asyncio.run(story())


def test_two_ranges_of_one_boot_have_two_ids(tmp_path: Path) -> None:
    """A restored gateway says a boot's range anew, from what it learns after the backup."""

    async def story() -> None:
        path, backup = tmp_path / "g.sqlite", tmp_path / "backup.sqlite"
        parts = await Parts.open(path, MovedClock("one"))
        parts.ingest.time.look()
        await parts.ingest.commit()
        await parts.store.close()
        shutil.copy(path, backup)
        ids = []
        for file, boot_id, zero_ms in ((path, "two", TRUE_MS), (backup, "three", TRUE_MS + 1000)):
            clock = MovedClock(boot_id)
            clock.ntp(zero_ms)
            parts = await Parts.open(file, clock)
            parts.ingest.time.look()
            await parts.ingest.commit()
            ids += [one["id"] for one in await anchors(parts) if one["quality"] == "range"]
            await parts.store.close()
        assert len(set(ids)) == len(ids) == 2

    asyncio.run(story())


def test_contacts_outlive_a_clean_end_and_cost_no_transaction(tmp_path: Path) -> None:
    async def story() -> None:
        clock = MovedClock("one")
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        stream = await parts.stream()
        await parts.ingest.commit()
        before = parts.ingest.commits
        for minute in range(30):
            clock.at_ms += 60_000
            parts.ingest.time.contact(
                stream, NodeClock(7, 60 * minute, 0), clock.at_ms, clock.at_ms + 50
            )
            await parts.ingest.commit()
        assert parts.ingest.commits == before
        clock.at_ms += 3600_000
        await parts.ingest.commit()
        assert await parts.column("select uptime_s from contacts") == [29 * 60]
        clock.at_ms += 60_000
        parts.ingest.time.contact(stream, NodeClock(8, 5, 3), clock.at_ms, clock.at_ms + 50)
        parts.ingest.time.keep_contacts(at_once=True)
        await parts.ingest.commit()
        await parts.store.close()
        again = await Parts.open(tmp_path / "g.sqlite", clock)
        stream = again.ledger.streams[(NODE_ID, EPOCH)]
        kept = again.ledger.contacts.of(stream).contacts
        assert [(one.node_boot_no, one.uptime_s) for one in kept] == [(7, 29 * 60), (8, 5)]
        await again.store.close()

    asyncio.run(story())


def test_a_session_is_a_contact_and_what_it_brings_is_pinned(tmp_path: Path) -> None:
    """The node of these tests says boot 1, uptime 60 s; its records say ten seconds a number."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = NodeInMemory(tmp_path / "log", parts)
        for seq in (1, 2, 3, 6):
            node.store(seq)
        began_ms = parts.clock.boottime_ms()
        await visit(backfill_of(parts), parts, node, 6)
        ended_ms = parts.clock.boottime_ms()
        (one,) = parts.ledger.contacts.of(parts.ledger.streams[(NODE_ID, EPOCH)]).contacts
        assert (one.node_boot_no, one.uptime_s, one.last_seq) == (1, 60, 6)
        assert began_ms <= one.asked_ms <= one.answered_ms <= ended_ms
        third = (await times(parts))[3]
        truth_ms = one.asked_ms - 30_000
        assert third["t_min_ms"] <= truth_ms <= third["t_max_ms"]
        assert third["t_max_ms"] - third["t_min_ms"] < 15_000
        await parts.store.close()

    asyncio.run(story())


def test_an_advert_may_be_older_when_something_stood_still(tmp_path: Path) -> None:
    async def story() -> None:
        clock = MovedClock("one")
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        await parts.stream()
        keeper: Timekeeper = parts.ingest.time
        hear(parts, clock, 1)  # BlueZ's memory may be older than this process
        clock.at_ms += STALE_MS
        keeper.beat()
        clock.at_ms += 1500
        hear(parts, clock, 2)
        clock.at_ms += 120_000  # the process is stopped
        hear(parts, clock, 3)
        keeper.beat()
        hear(parts, clock, 4)  # waited behind it
        clock.at_ms += 31_000
        for _ in range(40):
            clock.at_ms += 1000
            keeper.beat()
        hear(parts, clock, 5)
        hear(parts, clock, 6, flags=1 | FLAG_SERVICE)
        await parts.ingest.commit()
        sent = await times(parts)
        ages = {seq: one["boottime_ms"] - (one["t_min_ms"] or 0) for seq, one in sent.items()}
        assert ages[1] == AGE_MS + STALE_MS
        assert ages[2] == AGE_MS
        assert ages[3] == ages[4] == AGE_MS + 121_500
        assert ages[5] == AGE_MS
        assert sent[6]["t_min_ms"] is None  # in service it may be a repetition of long ago
        await parts.store.close()

    asyncio.run(story())


def test_an_older_file_learns_its_boots_and_their_anchors(tmp_path: Path) -> None:
    path = tmp_path / "g.sqlite"
    db = Database(path)
    migrations.apply(db, stop_before="m004_time")
    db.execute("insert into nodes values (1, ?, 'bin')", [NODE_ID])
    db.execute(
        "insert into streams (stream_no, node_no, epoch, last_seq, stored, lost) "
        "values (1, 1, ?, 4, 4, 0)",
        [EPOCH],
    )
    rows = (("one", 1000, 5, "none"), ("one", 9000, TRUE_MS + 9000, "ntp"), ("two", 50, 7, "none"))
    for number, (boot_id, boottime_ms, wall_ms, quality) in enumerate((*rows, rows[2]), 1):
        db.execute(
            "insert into readings (reading_no, stream_no, seq, kind, faults, boot_id, "
            "boottime_ms, wall_ms, wall_quality) values (?,1,?,'lamp',0,?,?,?,?)",
            [number, number, boot_id, boottime_ms, wall_ms, quality],
        )
        db.execute("insert into outbox (outbox_no, kind, row_no) values (?, 'reading', ?)",
                   [number, number])  # fmt: skip
    db.conn.commit()
    db.close()

    async def story() -> None:
        clock = MovedClock("two", 60_000)
        parts = await Parts.open(path, clock)
        assert [boot.boot_id for boot in parts.ledger.anchors.boots] == ["one", "two"]
        offset, how = parts.ledger.anchors.offset("one", 9000)
        assert how == "anchored"
        assert offset.ends is not None
        assert offset.ends[0] <= TRUE_MS <= offset.ends[1]
        assert parts.ledger.anchors.offset("two", 50)[1] == "range"
        sent = await times(parts)
        assert [sent[seq]["t_ms"] for seq in (1, 2, 3)] == [None, None, None]
        assert sent[1]["utc_ms"] is None  # it was never known when it was made
        hear(parts, clock, 5)
        await parts.ingest.commit()
        assert (await times(parts))[5]["t_max_ms"] == 60_000
        await parts.store.close()

    asyncio.run(story())
    with sqlite3.connect(path) as check:
        found = check.execute("select boot_id, last_ms from gateway_boots").fetchall()
    assert found == [("one", 9000), ("two", 50)]


def test_a_record_that_its_clock_contradicts_is_counted(tmp_path: Path) -> None:
    async def story() -> None:
        clock = MovedClock("one", 50_000_000)
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        stream = await parts.stream(last_seq=3)
        time = parts.ingest.time
        time.contact(stream, NodeClock(1, 30, 3), clock.at_ms - 100, clock.at_ms)
        late = {"via": "backfill", "auth": "session"}
        for seq in (2, 3):
            parts.ingest.record(stream, record(seq), **late)
        counted = parts.ledger.counters
        assert not counted["record contradicts its node's clock"]
        time.contact(stream, NodeClock(1, 5, 3), clock.at_ms, clock.at_ms + 100)
        assert counted["node's clock contradicts itself"] == 1
        parts.ingest.record(stream, record(1), **late)  # made 5 s after its node's newest
        assert counted["record contradicts its node's clock"] == 1
        await parts.store.close()

    asyncio.run(story())


def test_only_a_beat_that_was_held_up_is_logged(tmp_path: Path) -> None:
    async def story() -> None:
        clock = MovedClock("one")
        said: list[str] = []
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        keeper = Timekeeper(parts.ledger, clock, lambda event, **fields: said.append(event))
        for pause_ms in (0, 1000, 1900, 1000, 9000, 1000):
            clock.at_ms += pause_ms
            keeper.beat()
        assert said == ["the process stood still"]
        await parts.store.close()

    asyncio.run(story())
