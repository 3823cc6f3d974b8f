"""Tails: said once when a node falls silent or is retired, taken back with numbers on contact."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerb_gateway.model import Heard, Node
from kerb_gateway.store import report
from kerb_gateway.tails import Tails
from parts import EPOCH, KEY, LAMP_ID, NODE_ID, HandClock, Parts, heard, log, record

_LIMIT_S = 100.0


class Watch:
    """A gateway's parts on a clock that the test turns."""

    @classmethod
    async def open(cls, path: Path, clock: HandClock, nodes: list[Node] | None = None) -> Watch:
        watch = cls()
        watch.clock = clock
        watch.parts = await Parts.open(path, clock)
        watch.tails = Tails(
            watch.parts.store, watch.parts.ledger, watch.parts.ingest.commit, clock, log,
            watch.parts.nodes if nodes is None else nodes, silent_after_s=_LIMIT_S,
        )  # fmt: skip
        await watch.tails.begin()
        return watch

    def hear(self, make: Callable[[], Heard]) -> str:
        one = dataclasses.replace(make(), boottime_ms=self.clock.boottime_ms())
        return self.parts.ingest.advert(one).kind

    async def later(self, seconds: float) -> None:
        self.clock.boottime_s += seconds
        await self.tails.look()

    async def close(self) -> None:
        self.tails.note()
        await self.parts.ingest.commit()
        await self.parts.store.close()

    async def events(self) -> list[tuple[Any, ...]]:
        """Return (kind, first_seq, last_seq) of losses and of what was taken back."""
        await self.parts.ingest.commit()
        return [
            (one["kind"], one["first_seq"], one["last_seq"])
            for one in await self.parts.payloads()
            if one["kind"] in ("loss", "found")
        ]


def test_silence_is_said_once_and_a_new_number_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        await watch.parts.stream()
        for seq in (1, 2):
            watch.hear(lambda seq=seq: heard(seq))  # type: ignore[misc]
        await watch.later(99)
        assert await watch.events() == []
        await watch.later(1)
        await watch.later(500)
        assert await watch.events() == [("loss", 3, None)]
        assert watch.hear(lambda: heard(2)) == "duplicate"  # anybody can repeat that
        assert await watch.events() == [("loss", 3, None)]
        assert watch.hear(lambda: heard(6)) == "accepted"
        stream = watch.parts.ledger.newest_stream(NODE_ID)
        assert stream is not None
        assert stream.ranges() == ((3, 5),)
        assert await watch.events() == [("loss", 3, None), ("found", 3, 6)]
        await watch.later(100)
        assert await watch.events() == [("loss", 3, None), ("found", 3, 6), ("loss", 7, None)]
        losses = [one for one in await watch.parts.payloads() if one["kind"] in ("loss", "found")]
        assert losses[1]["of"] == losses[0]["id"] != losses[2]["id"]
        assert losses[2]["reason"] == "tail unknown"
        await watch.close()

    asyncio.run(story())


def test_a_poll_that_brings_nothing_ends_a_tail_without_numbers(tmp_path: Path) -> None:
    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        await watch.parts.stream(last_seq=4)
        await watch.later(100)
        await watch.parts.stream(last_seq=4)
        assert await watch.events() == [("loss", 5, None), ("found", 5, 4)]
        await watch.later(60)
        await watch.parts.stream(last_seq=4)  # each poll is contact
        await watch.later(60)
        assert len(await watch.events()) == 2
        await watch.close()

    asyncio.run(story())


def test_a_silence_that_is_over_is_not_counted_on_after_a_kill(tmp_path: Path) -> None:
    """The node was heard and that is stored; the process is killed before it notes silences."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        watch = await Watch.open(path, HandClock(1000))
        watch.tails._limit_s = 6 * 3600.0
        await watch.parts.stream()
        watch.hear(lambda: heard(1))
        await watch.later(5 * 3600)
        watch.tails.note()
        assert watch.hear(lambda: heard(2)) == "accepted"
        await watch.parts.ingest.commit()
        await watch.parts.store.close()
        watch = await Watch.open(path, HandClock(5))
        watch.tails._limit_s = 6 * 3600.0
        await watch.later(6 * 3600 - 1)
        assert await watch.events() == []
        await watch.later(1)
        assert await watch.events() == [("loss", 3, None)]
        await watch.close()

    asyncio.run(story())


def test_an_answer_counts_from_when_it_came_however_long_it_waited(tmp_path: Path) -> None:
    """A commit that waits for room on the disk keeps every answer waiting, for hours."""

    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        await watch.parts.stream()
        assert watch.hear(lambda: heard(4)) == "accepted"
        async with watch.parts.ingest._lock:  # as a commit holds it
            answer = asyncio.create_task(watch.parts.stream(last_seq=4))
            await asyncio.sleep(0)
            watch.clock.boottime_s += 10
            assert watch.hear(lambda: heard(5)) == "accepted"  # overtakes the answer
            watch.clock.boottime_s += 80
        await answer
        await watch.later(19)
        assert await watch.events() == []
        await watch.later(1)
        assert await watch.events() == [("loss", 6, None)]
        await watch.close()

    asyncio.run(story())


def test_silence_outlives_restarts_and_so_does_a_tail(tmp_path: Path) -> None:
    """The machine boots anew, too: its clock begins at nothing."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        long_s = 40 * 3600.0

        async def begin(boottime_s: float) -> Watch:
            watch = await Watch.open(path, HandClock(boottime_s))
            watch.tails._limit_s = long_s
            return watch

        watch = await begin(1000)
        await watch.parts.stream()
        watch.hear(lambda: heard(1))
        for _ in range(3):
            await watch.later(12 * 3600)
            assert await watch.events() == []
            await watch.close()
            watch = await begin(5)
        await watch.later(4 * 3600 - 1)
        assert await watch.events() == []
        await watch.later(1)
        assert await watch.events() == [("loss", 2, None)]
        await watch.close()
        watch = await begin(5)
        await watch.later(100 * 3600)
        assert await watch.events() == [("loss", 2, None)]
        watch.hear(lambda: heard(2))
        assert await watch.events() == [("loss", 2, None), ("found", 2, 2)]
        await watch.close()

    asyncio.run(story())


def test_a_retired_node_has_a_tail_and_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "g.sqlite"
        watch = await Watch.open(path, HandClock())
        await watch.parts.stream(last_seq=9)
        await watch.close()
        lamp = Node(2, LAMP_ID, "lamp", KEY)
        for _ in range(2):
            watch = await Watch.open(path, HandClock(), [lamp])
            assert await watch.events() == [("loss", 10, None)]
            await watch.close()
        with report.opened(path) as connection:
            (account,) = report.streams(connection)
            assert (account.in_gaps, account.unexplained) == (9, 0)
            assert report.losses(connection)[0].closed_seq is None
        watch = await Watch.open(path, HandClock())
        watch.hear(lambda: heard(12))
        assert await watch.events() == [("loss", 10, None), ("found", 10, 12)]
        await watch.close()
        with report.opened(path) as connection:
            assert report.losses(connection)[0].closed_seq == 12

    asyncio.run(story())


def test_a_new_epoch_says_no_second_tail(tmp_path: Path) -> None:
    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        await watch.parts.stream(last_seq=4)
        await watch.later(100)
        await watch.parts.ingest.epoch(watch.parts.nodes[0], EPOCH + 1, 0)
        await watch.later(100)
        tails = [event for event in await watch.events() if event[0] == "loss"]
        assert tails == [("loss", 5, None), ("loss", 1, None)]  # the old epoch's, then the new
        await watch.close()

    asyncio.run(story())


def test_a_node_may_have_its_own_patience(tmp_path: Path) -> None:
    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        parts = watch.parts
        await parts.stream(last_seq=1)
        lamp = await parts.ingest.epoch(parts.nodes[1], EPOCH, 1)
        lamp.node = dataclasses.replace(lamp.node, silent_after_s=5)
        await watch.later(5)
        assert [one["node"] for one in await parts.payloads()] == [LAMP_ID]
        await watch.close()

    asyncio.run(story())


def test_what_is_missing_of_a_retired_node_is_said_once(tmp_path: Path) -> None:
    """Of all its epochs, also where its silence was said before; again when it is more."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        watch = await Watch.open(path, HandClock())
        old = await watch.parts.stream(last_seq=9)
        old.close(3, 4)
        watch.parts.ledger.touch(old)
        await watch.parts.ingest.epoch(watch.parts.nodes[0], EPOCH + 1, 2)
        await watch.later(100)
        await watch.close()
        lamp = Node(2, LAMP_ID, "lamp", KEY)

        async def alarms() -> list[dict[str, Any]]:
            watch = await Watch.open(path, HandClock(), [lamp])
            await watch.parts.ingest.commit()
            said = [one for one in await watch.parts.payloads() if one["kind"] == "alarm"]
            await watch.close()
            return [one for one in said if one["what"] == "retired with open gaps"]

        for _ in range(2):
            (alarm,) = await alarms()
            assert (alarm["node"], alarm["numbers"], alarm["gaps"]) == (NODE_ID, 9, 3)
            assert [tuple(one.values()) for one in alarm["ranges"]] == [
                (EPOCH, 1, 2),
                (EPOCH, 5, 9),
                (EPOCH + 1, 1, 2),
            ]
        watch = await Watch.open(path, HandClock())
        await watch.parts.ingest.epoch(watch.parts.nodes[0], EPOCH + 1, 3)
        await watch.close()
        assert [one["numbers"] for one in await alarms()] == [9, 10]

    asyncio.run(story())


def test_an_epoch_that_only_a_recording_knows_does_not_hide_a_silence(tmp_path: Path) -> None:
    """A new card, and a recording over Wi-Fi of an epoch before: the node itself goes on, dies."""

    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        ingest, node = watch.parts.ingest, watch.parts.nodes[0]
        living = await watch.parts.stream(last_seq=3)
        recorded = await ingest.epoch(node, 5, 0, contact=False)
        assert ingest.record(recorded, record(1), via="mqtt", auth="mic", contact=True)
        await watch.later(10)
        assert ingest.record(living, record(4), via="mqtt", auth="mic", contact=True)
        before = await watch.events()
        assert before == [("loss", 4, None), ("found", 4, 4)]
        await watch.later(100)
        assert sorted((await watch.events())[len(before) :]) == [
            ("loss", 2, None),
            ("loss", 5, None),
        ]
        await watch.close()

    asyncio.run(story())


def test_a_start_does_not_wait_for_a_full_disk(tmp_path: Path) -> None:
    """A node was taken out, and there is no room to say so: the gateway starts all the same."""

    async def story() -> None:
        watch = await Watch.open(tmp_path / "g.sqlite", HandClock())
        await watch.parts.stream(last_seq=9)
        await watch.close()
        parts = await Parts.open(tmp_path / "g.sqlite")
        pages = await parts.column("select page_count from pragma_page_count()")
        await parts.store.query(f"pragma max_page_count = {pages[0]}")
        tails = Tails(
            parts.store, parts.ledger, parts.ingest.commit, parts.clock, log, [],
            silent_after_s=_LIMIT_S,
        )  # fmt: skip
        async with asyncio.timeout(5):
            await tails.begin()
        assert parts.ledger.waiting
        await parts.store.close()

    asyncio.run(story())
