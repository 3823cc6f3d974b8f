"""Dead letters: what the broker refused for good, and what a person did about it.

Rule: a letter is in one place: among the dead letters, or again in the outbox, or dropped; each
step is one transaction with the record of who took it, when and why. Who picks letters holds
`turn` until the commit that ends them is done: none is dealt with twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kerb_gateway.clock import Clock
from kerb_gateway.model import Origin
from kerb_gateway.store.database import Many, Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.outbox import READING, gw_epoch_in, reading_in

REPLAYED = "replayed"
DROPPED = "dropped"
BITE = 200  # letters that one transaction gives up
KEEPER = "retention"  # who drops letters when there are too many
NUMBER_MAX = 2**53 - 1
_COLUMNS = "outbox_no, kind, row_no, topic, payload, reason"


_COUNT_GIVEN_UP = (
    "update streams set given_up = given_up + 1 where node_no = "
    "(select node_no from nodes where node_id = ?) and epoch = ?"
)


class _Kind(msgspec.Struct):
    kind: str = ""


@dataclass(frozen=True)
class Letter:
    """One dead letter; `reading` names its reading, if it holds one."""

    outbox_no: int
    kind: str
    row_no: int | None
    topic: str
    payload: bytes
    reason: str

    @property
    def reading(self) -> tuple[Origin, int] | None:
        """(origin, seq) of the reading that is in it."""
        return reading_in(self.payload) if self.kind == READING else None


class Letters:
    """Reads the letters and turns what is decided into operations of the next commit."""

    def __init__(self, store: Store, ledger: Ledger, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self.turn = asyncio.Lock()

    async def count(self) -> int:
        """Return how many there are."""
        return int((await self._store.query("select count(*) from dead_letters"))[0][0])

    async def last_no(self) -> int:
        """Return the highest number of a letter; 0: there is none."""
        rows = await self._store.query("select coalesce(max(outbox_no), 0) from dead_letters")
        return int(rows[0][0])

    async def between(self, after: int, up_to: int, limit: int) -> list[Letter]:
        """Return the oldest letters with after < outbox_no <= up_to."""
        rows = await self._store.query(
            f"select {_COLUMNS} from dead_letters where outbox_no > ? and outbox_no <= ? "
            "order by outbox_no limit ?",
            [after, up_to, limit],
        )
        return [Letter(*row) for row in rows]

    async def named(self, numbers: Sequence[int]) -> list[Letter]:
        """Return the letters among `numbers`, oldest first."""
        marks = ",".join("?" * len(numbers))
        rows = await self._store.query(
            f"select {_COLUMNS} from dead_letters where outbox_no in ({marks}) order by outbox_no",
            numbers,
        )
        return [Letter(*row) for row in rows]

    async def ended(self, numbers: Sequence[int]) -> dict[int, str]:
        """Return number -> replayed | dropped of those that were letters once."""
        marks = ",".join("?" * len(numbers))
        rows = await self._store.query(
            f"select outbox_no, ended from ended_letters where outbox_no in ({marks})", numbers
        )
        return {row[0]: row[1] for row in rows}

    def replay(self, letter: Letter, who: str) -> int:
        """Put it back into the outbox; returns its new number. Durable with the next commit."""
        new_no = self._ledger.send_again(
            letter.outbox_no, letter.kind, letter.row_no, letter.topic, letter.payload
        )
        if letter.reading is not None:
            origin, seq = letter.reading
            said_with = gw_epoch_in(letter.payload)
            self._ledger.add_found(origin, seq, seq, "refused", letter.outbox_no, said_with)
        self._end(letter, REPLAYED, who, None, new_no)
        return new_no

    def drop(self, letter: Letter, who: str, why: str) -> None:
        """Give it up, upstream and in a row that stays. Durable with the next commit."""
        self._ledger.add(("delete from dead_letters where outbox_no = ?", [letter.outbox_no]))
        self._ledger.add_dropped(
            letter.reading,
            {
                "letter_no": letter.outbox_no,
                "topic": letter.topic,
                "reason": letter.reason,
                "who": who,
                "why": why,
            },
        )
        self._end(letter, DROPPED, who, why, None)

    async def give_up(self, count: int, why: str) -> int:
        """Give the oldest up, at most BITE; returns how many. Durable with the next commit.

        Upstream is told as of any dropped letter, but for a letter that itself only says so: a
        broker that refuses those would get one more for each.
        """
        letters = await self.between(0, NUMBER_MAX, min(count, BITE))
        for letter in letters:
            if says_dropped(letter):
                self._ledger.add(
                    ("delete from dead_letters where outbox_no = ?", [letter.outbox_no])
                )
                self._end(letter, DROPPED, KEEPER, why, None)
            else:
                self.drop(letter, KEEPER, why)
            self._ledger.count("dead letter given up: no room")
        return len(letters)

    async def forget(self, keep: int) -> int:
        """Let the next commit remove the oldest rows about letters that ended, beyond `keep`.

        What they say of readings goes on counting, as a number of their stream. Returns how many.
        """
        rows = await self._store.query(
            "select outbox_no, ended, kind, node, epoch from ended_letters where outbox_no <= "
            "(select outbox_no from ended_letters order by outbox_no desc limit 1 offset ?) "
            "order by outbox_no limit ?",
            [keep, BITE],
        )
        gone = [[row[3], row[4]] for row in rows if row[1:3] == (DROPPED, READING)]
        if gone:
            self._ledger.add(Many(_COUNT_GIVEN_UP, gone))
        if rows:
            self._ledger.add(("delete from ended_letters where outbox_no <= ?", [rows[-1][0]]))
        return len(rows)

    def _end(
        self, letter: Letter, ended: str, who: str, why: str | None, new_no: int | None
    ) -> None:
        reading = letter.reading
        node, epoch, seq = (
            (None, None, None)
            if reading is None
            else (reading[0].node_id, reading[0].epoch, reading[1])
        )
        now = self._clock.now()
        self._ledger.add(
            (
                "insert or replace into ended_letters (outbox_no, ended, new_no, kind, topic, "
                "reason, node, epoch, seq, who, why, boot_id, boottime_ms, wall_ms, wall_quality) "
                "values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    letter.outbox_no,
                    ended,
                    new_no,
                    letter.kind,
                    letter.topic,
                    letter.reason,
                    node,
                    epoch,
                    seq,
                    who,
                    why,
                    now.boot_id,
                    now.boottime_ms,
                    now.wall_ms,
                    now.quality,
                ],
            )
        )
        self._ledger.count(f"dead letter {ended}")


def says_dropped(letter: Letter) -> bool:
    """Tell whether it is the record of a letter that was dropped."""
    try:
        return msgspec.json.decode(letter.payload, type=_Kind).kind == DROPPED
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def described(letter: Letter) -> dict[str, Any]:
    """Return a letter as a person wants to see it, without its content."""
    reading = letter.reading
    return {
        "outbox_no": letter.outbox_no,
        "kind": letter.kind,
        "reason": letter.reason,
        "topic": letter.topic,
        "bytes": len(letter.payload),
        "id": None if reading is None else f"{reading[0].node_id}/{reading[0].epoch}/{reading[1]}",
    }
