"""The outbox: numbered rows that name what goes upstream, and a mark up to which they are done.

Rule: a number is used once, ever; the mark moves only over rows that ended, in their order, so a
crash sends some rows again and never leaves one out. Messages are made when they are sent, from
the rows that they name.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kerb_gateway.model import Origin, Payloads, Reading
from kerb_gateway.store.database import Operation, Store
from kerb_gateway.store.fresh import Fresh

READING = "reading"
LOSS = "loss"
MESSAGE = "message"
_READINGS = (
    f"select n.node_id, s.epoch, {', '.join(f't.{name}' for name in Reading.__struct_fields__)} "
    "from readings t join streams s using (stream_no) join nodes n using (node_no) "
    "where t.reading_no in"
)
_LOSSES = (
    "select n.node_id, s.epoch, t.* from losses t "
    "join streams s using (stream_no) join nodes n using (node_no) where t.loss_no in"
)
# What the broker refused for good is not sent again from its old row, whatever became of it.
NO_LETTER = (
    "outbox_no not in (select outbox_no from dead_letters) "
    "and outbox_no not in (select outbox_no from ended_letters)"
)
MARK_ROWS = 500  # so many ended rows are worth a transaction of their own


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message on its way to the broker."""

    outbox_no: int
    topic: str
    payload: bytes
    reading: tuple[Origin, int] | None = None  # (origin, seq) of what is lost if it is refused
    row_no: int | None = None  # of the reading


_NamedRows = dict[str, dict[int, tuple[Origin, Any]]]  # a Reading, or a loss's columns


class _Named(msgspec.Struct):
    node: str
    epoch: int
    seq: int


class _Made(msgspec.Struct):
    gw_epoch: str


def reading_in(payload: bytes) -> tuple[Origin, int] | None:
    """Return (origin, seq) that a reading's message names, or None if it names none."""
    try:
        named = msgspec.json.decode(payload, type=_Named)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return Origin(named.node, named.epoch), named.seq


def gw_epoch_in(payload: bytes) -> str | None:
    """Return the gw_epoch that a reading's message was made with, or None if it names none."""
    try:
        return msgspec.json.decode(payload, type=_Made).gw_epoch
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def dead_letter(message: Outgoing, reason: str) -> Operation:
    """Return what keeps a message that cannot be delivered."""
    return (
        "insert or replace into dead_letters (outbox_no, kind, topic, payload, reason, row_no) "
        "values (?,?,?,?,?,?)",
        [
            message.outbox_no,
            MESSAGE if message.reading is None else READING,
            message.topic,
            message.payload,
            reason,
            message.row_no,
        ],
    )


def _marks(numbers: Sequence[int]) -> str:
    return ",".join("?" * len(numbers))


class Outbox:
    """Reads what is to be sent and keeps the mark."""

    def __init__(self, store: Store, payloads: Payloads) -> None:
        self._store = store
        self._payloads = payloads
        self._fresh = Fresh()
        self._before: list[tuple[int, str]] = []
        self._order: deque[int] = deque()
        self._ended: set[int] = set()
        self._marked = 0
        self.done = 0
        self.read = 0  # rows up to here are in the publisher's hands
        self.in_hand = 0  # and up to here in memory for it
        self.turn = asyncio.Lock()  # rows are read for sending, or given up: never both at once

    async def load(self) -> None:
        """Read the mark, and under which gw_epochs rows went out before a backup was restored."""
        rows = await self._store.query("select value from meta where key = 'outbox_done'")
        self.done = self._marked = self.read = self.in_hand = int(rows[0][0]) if rows else 0
        self._before = [
            (done_no, json.loads(before)[-1])  # the last is the backup's own
            for done_no, before in await self._store.query(
                "select done_no, before from restores where done_no is not null "
                "order by restore_no"
            )
        ]

    async def after(self, outbox_no: int, limit: int) -> list[Outgoing]:
        """Return the next messages, at most `limit`, in their order.

        What became a dead letter, though the mark did not come to be stored, is left out, also
        when somebody has dealt with it since: the mark passes over it.
        """
        async with self.turn:
            return await self._after(outbox_no, limit)

    async def _after(self, outbox_no: int, limit: int) -> list[Outgoing]:
        if self._fresh and self._fresh.first_no == outbox_no + 1:
            return self._from_memory(limit)
        rows = await self._store.query(
            "select outbox_no, kind, row_no, topic, payload from outbox where outbox_no > ? "
            f"and {NO_LETTER} order by outbox_no limit ?",
            [outbox_no, limit],
        )
        if self._fresh:  # committed, and kept, while this was read
            rows = [row for row in rows if row[0] < self._fresh.first_no]
            if not rows:  # nothing but letters lies between
                return self._from_memory(limit)
        named = await self._all_named(rows)
        self._order.extend(row[0] for row in rows)
        self.read = max(self.read, *(row[0] for row in rows), 0)
        self.in_hand = max(self.in_hand, self.read)
        messages = []
        for row in rows:
            message = self._message(row, named)
            if message is None:  # a damaged database: kept, counted, and never in the way
                await self._bury_missing(row[0], f"{row[1]} {row[2]}")
            else:
                messages.append(message)
        return messages

    async def kept(self, first_no: int, last_no: int) -> list[Outgoing]:
        """Return the messages of a range once more, in their order; the mark knows nothing of it.

        Each has the gw_epoch that it went out with. A row whose content is gone is left out.
        """
        rows = await self._store.query(
            "select outbox_no, kind, row_no, topic, payload from outbox "
            "where outbox_no between ? and ? order by outbox_no",
            [first_no, last_no],
        )
        named = await self._all_named(rows)
        made = (self._message(row, named) for row in rows)
        return [self._as_sent(message) for message in made if message is not None]

    def _as_sent(self, message: Outgoing) -> Outgoing:
        for done_no, gw_epoch in self._before:
            if message.outbox_no <= done_no:
                payload = self._payloads.of_epoch(message.payload, gw_epoch)
                return msgspec.structs.replace(message, payload=payload)
        return message

    async def _all_named(self, rows: list[tuple[Any, ...]]) -> _NamedRows:
        return {READING: await self._readings(rows), LOSS: await self._losses(rows)}

    def committed(self, rows: Sequence[Sequence[Any]], content: Mapping[int, Any]) -> None:
        """Keep rows that are on disk by now, if all before them are in the publisher's hands.

        content: (origin, reading) of the rows that name a reading, by their outbox_no.
        """
        if rows and rows[0][0] == self.in_hand + 1 and self._fresh.keep(rows, content):
            self.in_hand = int(rows[-1][0])

    def let_go(self) -> None:
        """Forget what is kept in memory and was not asked for yet: it lies in the database."""
        self._fresh = Fresh()
        self.in_hand = self.read

    def _from_memory(self, limit: int) -> list[Outgoing]:
        messages = []
        for row, content in self._fresh.take(limit):
            self._order.append(row[0])
            self.read = row[0]
            if content is not None:
                messages.append(self._of_reading(row[0], *content))
            elif message := self._message(tuple(row), {}):  # it brings its payload along
                messages.append(message)
        return messages

    def _of_reading(self, outbox_no: int, origin: Origin, reading: Reading) -> Outgoing:
        topic, payload = self._payloads.reading(origin, reading, outbox_no)
        return Outgoing(outbox_no, topic, payload, (origin, reading.seq), reading.reading_no)

    async def _readings(self, rows: list[tuple[Any, ...]]) -> dict[int, tuple[Origin, Reading]]:
        """Return the readings that rows name, each with its origin, by their number."""
        numbers = [row[2] for row in rows if row[1] == READING]
        if not numbers:
            return {}
        found = await self._store.query(f"{_READINGS} ({_marks(numbers)})", numbers)
        readings = [(Origin(node_id, epoch), Reading(*row)) for node_id, epoch, *row in found]
        return {reading.reading_no: (origin, reading) for origin, reading in readings}

    async def _losses(
        self, rows: list[tuple[Any, ...]]
    ) -> dict[int, tuple[Origin, dict[str, Any]]]:
        """Return the columns of the losses that rows name, each with its origin, by number."""
        numbers = [row[2] for row in rows if row[1] == LOSS]
        if not numbers:
            return {}
        found = await self._store.rows(f"{_LOSSES} ({_marks(numbers)})", numbers)
        return {
            fields["loss_no"]: (Origin(fields["node_id"], fields["epoch"]), fields)
            for fields in found
        }

    def _message(self, row: tuple[Any, ...], named: _NamedRows) -> Outgoing | None:
        outbox_no, kind, row_no, topic, payload = row
        if payload is not None:
            payload = self._payloads.numbered(payload, outbox_no)
        if kind == MESSAGE:
            return Outgoing(outbox_no, topic, payload)
        if row_no not in named.get(kind, {}):
            # A dead letter that goes out again: it was kept whole, its reading maybe not.
            return (
                None
                if payload is None
                else Outgoing(outbox_no, topic, payload, reading_in(payload), row_no)
            )
        origin, content = named[kind][row_no]
        if kind == READING:
            return self._of_reading(outbox_no, origin, content)
        topic, payload = self._payloads.loss(origin, content)
        return Outgoing(outbox_no, topic, self._payloads.numbered(payload, outbox_no))

    # --- the mark ---

    def ended(self, outbox_no: int) -> None:
        """A row was acknowledged, or is kept as a dead letter: the mark may move over it."""
        if self._order and self._order[0] == outbox_no:  # in its turn, as most are
            self._ended.discard(outbox_no)
            self.done = self._order.popleft()
        else:
            self._ended.add(outbox_no)
        while self._order and self._order[0] in self._ended:
            self.done = self._order.popleft()
            self._ended.discard(self.done)

    @property
    def unmarked(self) -> int:
        """How far the stored mark lags behind."""
        return self.done - self._marked

    def mark(self) -> list[Operation]:
        """Return what stores the mark; to be part of any transaction, and harmless if it fails."""
        if self.done == self._marked:
            return []
        self._marked = self.done
        return [
            (
                "insert into meta values ('outbox_done', ?) "
                "on conflict (key) do update set value = excluded.value",
                [str(self.done)],
            )
        ]

    async def write_mark(self) -> None:
        """Store the mark now, in a transaction of its own."""
        await self._store.write(self.mark())

    async def _bury_missing(self, outbox_no: int, what: str) -> None:
        """Keep what is left of a row whose content is not there."""
        await self._store.write(
            [dead_letter(Outgoing(outbox_no, what, b""), "its row is missing")]
        )
        self.ended(outbox_no)

    async def waiting(self) -> int:
        """Return how many rows are not done."""
        rows = await self._store.query(
            f"select count(*) from outbox where outbox_no > ? and {NO_LETTER}", [self.done]
        )
        return int(rows[0][0])
