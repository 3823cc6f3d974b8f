"""Requests to publish kept outbox rows once more, and how far each one is.

Rule: a request is stored before it is confirmed, has one result, and is known by its command_id
when it comes again; rows that are not kept any more, or were never delivered, are named.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from kerb_gateway.store.database import Operation, Store
from kerb_gateway.store.ledger import Ledger

OPEN_MAX = 8
ROWS_MAX = 1_000_000  # of one request
RANGES_MAX = 32  # of rows not kept that a result lists; it counts all
_KEPT_REQUESTS = 1000
GATEWAY = "gateway"


@dataclass
class Replay:
    """One request; next_no is the first number that is not dealt with."""

    replay_no: int
    command_id: str
    first_no: int
    last_no: int
    until_no: int  # what was delivered when it was accepted; later rows are on their way anyway
    next_no: int
    published: int = 0
    refused: int = 0
    letters: int = 0
    not_kept: int = 0
    not_kept_ranges: list[list[int]] = field(default_factory=list)

    def miss(self, first_no: int, last_no: int) -> None:
        """Note numbers that are not kept."""
        if first_no > last_no:
            return
        self.not_kept += last_no - first_no + 1
        ranges = self.not_kept_ranges
        if ranges and ranges[-1][1] + 1 == first_no:
            ranges[-1][1] = last_no
        elif len(ranges) < RANGES_MAX:
            ranges.append([first_no, last_no])

    def outcome(self) -> dict[str, Any]:
        """Return what its result says."""
        queued_first = max(self.first_no, self.until_no + 1)
        return {
            "from": self.first_no,
            "to": self.last_no,
            "published": self.published,
            "refused": self.refused,
            "letters": self.letters,
            "not_kept": self.not_kept,
            "not_kept_ranges": self.not_kept_ranges,
            "still_queued": [queued_first, self.last_no] if queued_first <= self.last_no else None,
        }


_COLUMNS = (
    "replay_no, command_id, first_no, last_no, until_no, next_no, published, refused, letters, "
    "not_kept, not_kept_ranges"
)


def _replay(row: tuple[Any, ...]) -> Replay:
    values: list[Any] = [*row[:-1], json.loads(row[-1])]
    return Replay(*values)


class Replays:
    """The table of requests."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._last_no = 0  # used by this process, committed or not
        self.stored = asyncio.Event()  # set when a request was committed

    async def oldest_open(self) -> Replay | None:
        """Return the request that is to be worked on."""
        rows = await self._store.query(
            f"select {_COLUMNS} from replays where state = 'open' order by replay_no limit 1"
        )
        return _replay(rows[0]) if rows else None

    async def state(self, replay_no: int) -> dict[str, Any] | None:
        """Return how far a request is, or None if it is not known."""
        rows = await self._store.query(
            f"select {_COLUMNS}, state from replays where replay_no = ?", [replay_no]
        )
        if not rows:
            return None
        replay = _replay(rows[0][:-1])
        return {"state": rows[0][-1], "next_no": replay.next_no} | replay.outcome()

    async def known(self, command_id: str) -> int | None:
        """Return the replay_no of a request that came before."""
        rows = await self._store.query(
            "select replay_no from replays where command_id = ?", [command_id]
        )
        return int(rows[0][0]) if rows else None

    async def why_not(self, first_no: int, last_no: int) -> str | None:
        """Return why a request cannot be taken, or None."""
        if first_no > last_no:
            return f"from {first_no} to {last_no}: to must not be below from"
        if last_no - first_no >= ROWS_MAX:
            return f"{last_no - first_no + 1} numbers: at most {ROWS_MAX} at once"
        rows = await self._store.query("select count(*) from replays where state = 'open'")
        if rows[0][0] >= OPEN_MAX:
            return f"{OPEN_MAX} replays are open: wait for one to end"
        return None

    async def accept(self, command_id: str, first_no: int, last_no: int) -> int:
        """Let the next commit store a request; returns its number."""
        done = self._ledger.outbox.done
        row = [command_id, first_no, last_no, min(last_no, done), first_no]
        return await self._insert("open", row)

    async def refuse(self, command_id: str | None, why: str) -> None:
        """Let the next commit store a request that is not taken, and its result."""
        if command_id is not None:
            await self._insert("refused", [command_id, 0, 0, 0, 0])
        self._ledger.add_result(
            GATEWAY, {"command_id": command_id, "result": "refused", "detail": why}
        )

    async def _insert(self, state: str, row: list[Any]) -> int:
        rows = await self._store.query("select coalesce(max(replay_no), 0) from replays")
        replay_no = self._last_no = max(int(rows[0][0]), self._last_no) + 1
        self._ledger.add(
            (
                "insert into replays (replay_no, command_id, first_no, last_no, until_no, "
                "next_no, published, refused, letters, not_kept, not_kept_ranges, state) "
                "values (?,?,?,?,?,?,0,0,0,0,'[]',?)",
                [replay_no, *row, state],
            )
        )
        self._ledger.add(
            (
                "delete from replays where state != 'open' and replay_no <= ?",
                [replay_no - _KEPT_REQUESTS],
            )
        )
        return replay_no

    def progress(self, replay: Replay, state: str = "open") -> Operation:
        """Return what stores how far a request is."""
        return (
            "update replays set next_no = ?, published = ?, refused = ?, letters = ?, "
            "not_kept = ?, not_kept_ranges = ?, state = ? where replay_no = ?",
            [
                replay.next_no,
                replay.published,
                replay.refused,
                replay.letters,
                replay.not_kept,
                json.dumps(replay.not_kept_ranges),
                state,
                replay.replay_no,
            ],
        )

    async def write(self, replay: Replay) -> None:
        """Store how far a request is, now."""
        await self._store.write([self.progress(replay)])

    def end(self, replay: Replay) -> None:
        """Let the next commit store that a request is done, and its one result."""
        self._ledger.add(self.progress(replay, "done"))
        self._ledger.add_result(
            GATEWAY, {"command_id": replay.command_id, "result": "replayed"} | replay.outcome()
        )

    async def next_kept(self, replay: Replay) -> int:
        """Return the lowest kept number from next_no on, at most until_no + 1."""
        rows = await self._store.query(
            "select min(outbox_no) from outbox where outbox_no >= ? and outbox_no <= ?",
            [replay.next_no, replay.until_no],
        )
        return replay.until_no + 1 if rows[0][0] is None else int(rows[0][0])

    async def letters(self, first_no: int, last_no: int) -> set[int]:
        """Return the numbers in a range whose rows the broker refused for good."""
        rows = await self._store.query(
            "select outbox_no from dead_letters where outbox_no between ?1 and ?2 union "
            "select outbox_no from ended_letters where outbox_no between ?1 and ?2",
            [first_no, last_no],
        )
        return {row[0] for row in rows}
