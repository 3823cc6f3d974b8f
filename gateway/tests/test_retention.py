"""What bounds the database: what goes by age, by number and by size, and what never goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kerb_gateway import ingest
from kerb_gateway.clock import Moment
from kerb_gateway.model import Loss
from kerb_gateway.store.database import Many
from kerb_gateway.store.retention import KEEP_COMMANDS, Retention
from parts import EPOCH, LAMP_ID, NODE_ID, Parts, heard, log, record


class Hours:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.boot_id = "one"
        self.at_ms = 0

    def boottime_ms(self) -> int:
        return self.at_ms

    def now(self) -> Moment:
        return Moment(self.boot_id, self.at_ms, 0, "none")

    def hour(self) -> None:
        self.at_ms += 3600_000


async def deliver(parts: Parts) -> None:
    """Let everything be acknowledged."""
    outbox = parts.ledger.outbox
    while rows := await outbox.after(outbox.read, 1000):
        for row in rows:
            outbox.ended(row.outbox_no)


async def declared(parts: Parts) -> set[int]:
    """Return the numbers that were declared lost."""
    losses = await parts.store.query("select first_seq, last_seq from losses")
    return {seq for first, last in losses for seq in range(first, last + 1)}


def test_old_rows_go_by_lived_hours_and_only_when_delivered(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        clock = Hours()
        commit = parts.ingest.commit_or_full
        keeper = Retention(
            parts.store,
            parts.ledger,
            clock,
            log,
            commit=commit,
            keep_s=3 * 3600,
            max_bytes=1 << 30,
        )
        for hour in range(1, 7):
            for seq in range(hour * 10 - 9, hour * 10 + 1):
                parts.ingest.advert(heard(seq))
            await parts.ingest.commit()
            if hour == 4:
                await deliver(parts)
            if hour == 5:  # a restart: how long the machine was off is unknown
                clock.boot_id, clock.at_ms = "two", 0
            clock.hour()
            await keeper.hour()
        # Lived: 0, 1, ... 5 h at the six counts: what stood at the first three is 3 h old.
        assert await parts.column("select min(seq) from readings") == [31]
        assert await parts.column("select min(outbox_no) from outbox") == [31]
        await parts.store.close()

    asyncio.run(story())


def test_undelivered_rows_go_by_size_only_and_are_declared(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        clock = Hours()
        commit = parts.ingest.commit_or_full
        keeper = Retention(
            parts.store, parts.ledger, clock, log, commit=commit, keep_s=1, max_bytes=400_000
        )
        await parts.ledger.outbox.after(0, 3)  # rows 1 to 3 are on their way
        seq = 0
        for _ in range(8):
            for _ in range(500):
                seq += 1
                if seq % 100:  # some numbers were never heard
                    parts.ingest.advert(heard(seq))
            await parts.ingest.commit()
            if seq == 500:
                await parts.ledger.outbox.after(0, 3)
            clock.hour()
            await keeper.hour()
        await parts.ingest.commit()
        assert await keeper.used_bytes() <= 400_000
        kept = set(await parts.column("select seq from readings"))
        lost = await declared(parts)
        gaps = {n for gap in stream.gaps for n in range(gap.first_seq, gap.last_seq + 1)}
        assert {1, 2, 3} <= kept  # they may arrive any moment: never both delivered and lost
        assert not kept & lost
        assert kept | lost | gaps == set(range(1, stream.last_seq + 1))
        assert stream.unexplained() == 0
        assert {p["reason"] for p in await parts.payloads() if p["kind"] == "loss"} == {
            "retention"
        }
        await parts.store.close()
        again = await Parts.open(tmp_path / "g.sqlite")
        assert again.ledger.streams[(NODE_ID, EPOCH)].unexplained() == 0
        assert again.ingest.advert(heard(seq + 1)).kind == ingest.ACCEPTED
        await again.ingest.commit()
        await again.store.close()

    asyncio.run(story())


def test_what_is_being_read_for_the_publisher_is_not_given_up(tmp_path: Path) -> None:
    """The size leaves no choice while a backlog drains: nothing is both sent and declared lost."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in range(1, 3001):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        outbox = parts.ledger.outbox
        outbox.let_go()  # as after a restart: nothing in memory
        keeper = Retention(
            parts.store, parts.ledger, Hours(), log,
            commit=parts.ingest.commit_or_full, keep_s=1e9, max_bytes=200_000,
        )  # fmt: skip
        sweep = asyncio.ensure_future(keeper.hour())
        sent: set[int] = set()
        while not sweep.done():
            sent |= {row.reading[1] for row in await outbox.after(outbox.read, 64) if row.reading}
            await asyncio.sleep(0)
        await sweep
        lost = await declared(parts)
        assert sent
        assert lost
        assert not sent & lost
        assert sent | lost == set(range(1, 3001))
        assert await parts.column("select count(*) from dead_letters") == [0]
        await parts.store.close()

    asyncio.run(story())


def test_a_retired_nodes_backlog_goes_with_the_others(tmp_path: Path) -> None:
    """Else the living nodes' readings would be given up for it, every hour, and make no room."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        for seq in range(1, 3001):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        del parts.ledger.streams[(NODE_ID, EPOCH)]  # taken out of the configuration
        lamp = await parts.ingest.epoch(parts.nodes[1], EPOCH, 0)
        clock = Hours()
        keeper = Retention(
            parts.store, parts.ledger, clock, log,
            commit=parts.ingest.commit_or_full, keep_s=1e9, max_bytes=300_000,
        )  # fmt: skip
        for hour in range(3):
            for seq in range(hour * 10 + 1, hour * 10 + 11):
                parts.ingest.record(lamp, record(seq), via="modbus", auth="none")
            await parts.ingest.commit()
            parts.ledger.outbox.let_go()
            clock.hour()
            await keeper.hour()
            assert await keeper.used_bytes() <= 300_000
        assert lamp.lost <= 10  # its first hour at most
        declared = "select sum(last_seq - first_seq + 1) from losses where stream_no = 1"
        stored = "select stored, lost from streams where stream_no = 1"
        assert await parts.column(declared) == [3000]
        assert await parts.store.query(stored) == [(0, 3000)]
        named = {one["node"] for one in await parts.payloads() if one["kind"] == "loss"}
        assert NODE_ID in named <= {NODE_ID, LAMP_ID}
        await parts.store.close()

    asyncio.run(story())


def test_delivered_losses_go_by_age_and_never_a_tail_that_stands(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        clock = Hours()
        keeper = Retention(
            parts.store, parts.ledger, clock, log,
            commit=parts.ingest.commit_or_full, keep_s=2 * 3600, max_bytes=1 << 30,
        )  # fmt: skip
        parts.ingest.advert(heard(1))
        parts.ledger.open_tail(stream, clock.now())  # loss 1, closed by number 5
        parts.ingest.advert(heard(5))
        parts.ledger.add_loss(Loss(stream, 2, 4, "overwritten"), clock.now())
        parts.ledger.open_tail(stream, clock.now())  # loss 3 stands
        await parts.ingest.commit()
        await deliver(parts)
        parts.ledger.add_loss(Loss(stream, 6, 7, "crc"), clock.now())  # waits
        parts.ledger.add_loss(Loss(stream, 8, 9, "crc"), clock.now())
        await parts.ingest.commit()
        for _ in range(4):
            clock.hour()
            await keeper.hour()
        # No hour goes while it has rows that wait: what is old is 1 to 5.
        assert await parts.column("select loss_no from losses") == [1, 2, 3, 4, 5]
        await deliver(parts)
        parts.ledger.add_restored({}, [2])  # said again
        await parts.ingest.commit()
        await keeper.hour()
        assert await parts.column("select loss_no from losses") == [2, 3, 5]
        await parts.store.close()

    asyncio.run(story())


def test_commands_that_are_done_are_remembered_up_to_a_number(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        rows = [[number, str(number), "sent" if number == 2 else "done"] for number in range(1, 8)]
        rows += [[number, str(number), "done"] for number in range(8, KEEP_COMMANDS + 5)]
        insert = "insert into commands (command_no, command_id, state) values (?,?,?)"
        await parts.store.write([Many(insert, rows)])
        keeper = Retention(
            parts.store, parts.ledger, Hours(), log,
            commit=parts.ingest.commit_or_full, keep_s=1e9, max_bytes=1 << 30,
        )  # fmt: skip
        await keeper.hour()
        kept = await parts.column("select command_no from commands order by command_no")
        assert kept == [2, *range(5, KEEP_COMMANDS + 5)]
        await parts.store.close()

    asyncio.run(story())


def test_readings_are_not_given_up_for_what_others_take(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        stream = await parts.stream()
        for seq in range(1, 51):
            parts.ingest.advert(heard(seq))
        await parts.ingest.commit()
        insert = "insert into commands (command_no, command_id, state) values (?,?,'accepted')"
        await parts.store.write([Many(insert, [[n, f"{n:064d}"] for n in range(1, 5001)])])
        keeper = Retention(
            parts.store, parts.ledger, Hours(), log,
            commit=parts.ingest.commit_or_full, keep_s=1e9, max_bytes=200_000,
        )  # fmt: skip
        await keeper.hour()
        await keeper.hour()
        await parts.ingest.commit()
        assert stream.lost == 0
        sent = await parts.payloads()
        assert [p["seq"] for p in sent if p["kind"] == "fill"] == list(range(1, 51))
        (alarm,) = [p for p in sent if p["kind"] == "alarm"]  # once
        assert alarm["what"].startswith("the database is too large")
        assert alarm["bytes"] > alarm["max_bytes"] == 200_000
        await parts.store.close()

    asyncio.run(story())
