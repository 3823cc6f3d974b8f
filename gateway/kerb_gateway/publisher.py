"""Takes rows out of the outbox and to the broker; a row ends only on its PUBACK.

Rule: rows go out in their order, a bounded number unacknowledged; what the broker refuses for
good is kept with the dead letters, never thrown away. How far the outbox is done is stored with
the next batch of readings, or after many rows: writing it after each PUBACK would wear the card.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kerb_gateway.errors import StoreFull
from kerb_gateway.flights import Flights
from kerb_gateway.store.outbox import MARK_ROWS, Outbox, Outgoing
from kerb_gateway.uplink.refusals import (
    AGAIN,
    FAILURES,
    HOLD,
    NO_SUBSCRIBER,
    Hold,
    Patience,
    verdict,
)
from kerb_gateway.uplink.sizes import TOO_LARGE, batch_bytes, packet_bytes

_PAUSE_S = 0.5
_IDLE_S = 10.0  # with nothing to do; a commit, or what comes back, ends it at once
_LOOK_S = 5.0
_PACE_S = 0.25  # between two marks, or two burials: each is a transaction
_LOOKS_A_PUBACK = 8
_READ_ROWS = 1024
_BACKLOG_ROWS = 128  # with so many more waiting, readings travel together
# Unacknowledged payloads; paho holds each up to twice. At 200 ms to the broker it is 5 MB/s.
_FLYING_BYTES = 1_000_000
_LATER_ROWS = 1000  # put off by the broker, each by itself; beyond that nothing new is begun
_AHEAD_ROWS = 20000  # rows that may end before one that was put off
_REFUSED_ROWS = 256  # that wait to be kept; beyond that nothing is sent

Log = Callable[..., Any]
Refused = list[tuple[Outgoing, str]]  # each with the reason


@dataclass(frozen=True)
class Batch:
    """Where many readings go in one message, and how many at most; 1: none ever."""

    topic: str
    rows: int


class Broker(Protocol):
    """What the publisher needs of the uplink."""

    connected: asyncio.Event
    receive_maximum: int
    maximum_packet_bytes: int
    on_acked: Callable[[int, int], None]

    def publish(self, topic: str, payload: bytes) -> int:
        """Send; returns the message id."""

    def renew(self) -> None:
        """Begin the connection anew: what is unacknowledged goes out again."""


def join(payloads: list[bytes]) -> bytes:
    """Return JSON objects as one JSON array."""
    return b"[" + b",".join(payloads) + b"]"


async def _within(timeout_s: float, event: asyncio.Event) -> None:
    """Wait for an event, but no longer."""
    # Not wait_for: in Python 3.11 it forgets a cancel that comes together with the event.
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


class Publisher:
    """The loop from the outbox to the broker."""

    def __init__(
        self,
        outbox: Outbox,
        broker: Broker,
        committed: asyncio.Event,
        log: Log,
        *,
        in_flight: int,
        mark_s: float,
        bury: Callable[[Refused], Awaitable[None]],
        batch: Batch,
        patience: Patience | None = None,
        flights: Flights | None = None,
    ) -> None:
        """mark_s: after so long without a batch that carries it, the mark is stored by itself;
        bury: keeps what was refused for good, durably and in one commit, before the mark may
        pass it;
        patience: with refusals of the moment; flights: and with a PUBACK that does not come.
        """
        self._patience = patience or Patience()
        self._hold = Hold(self._patience)
        self._later: list[tuple[float, int, Outgoing]] = []  # a heap: (when, outbox_no, row)
        self._tries: dict[int, int] = {}  # of rows that were put off
        self._keep = bury
        self._batch = batch
        self._mark_s = mark_s
        self._outbox = outbox
        self._broker = broker
        self._committed = committed
        self._log = log
        self._window = in_flight
        self._cursor = outbox.done
        self._ready: deque[Outgoing] = deque()
        self._together = False  # a backlog: its readings travel together to its last one
        self._flying = Flights() if flights is None else flights
        self._alone: set[int] = set()  # rows of a batch that was refused: each for itself now
        self._refused: Refused = []
        self._burying = asyncio.Lock()  # two would end rows that neither has kept
        self._freed = asyncio.Event()
        self._to_keep = asyncio.Event()  # refused rows, or a mark that is far behind
        self.lent = 0  # of the broker's room, to a replay
        self.delivered = 0
        self.unheard = 0
        broker.on_acked = self._acked

    def _acked(self, mid: int, reason: int) -> None:
        rows = self._flying.pop(mid)
        self._freed.set()
        if rows is None:
            return  # of a replay that no longer waits for it
        self._answered(rows, reason)

    def _answered(self, rows: list[Outgoing], reason: int) -> None:
        if reason < FAILURES:
            self._delivered(rows, reason)
        elif verdict(reason) == HOLD:
            self._held(rows)
        elif len(rows) > 1:
            self._alone.update(row.outbox_no for row in rows)
            self._again(rows)
        elif verdict(reason) != AGAIN or not self._put_off(rows[0]):
            self._refuse(rows[0], f"0x{reason:02x}")

    def _again(self, rows: list[Outgoing]) -> None:
        """Let rows go out once more, in their order whatever came back first."""
        self._committed.set()  # who waits for rows has some
        self._ready = deque(sorted([*rows, *self._ready], key=lambda row: row.outbox_no))

    def _held(self, rows: list[Outgoing]) -> None:
        """The broker has no room for us: they go out again, after a pause for everything."""
        self._again(rows)
        now_s = asyncio.get_running_loop().time()
        if self._hold.refused(now_s):
            self._log("broker has no room", pause_s=round(self._hold.left_s(now_s), 1))

    def _put_off(self, row: Outgoing) -> bool:
        """Try a row again later, the others go on; False when it was tried often enough."""
        tries = self._tries.pop(row.outbox_no, 1)
        if tries >= self._patience.tries:
            return False
        self._tries[row.outbox_no] = tries + 1
        self._alone.add(row.outbox_no)
        due_s = asyncio.get_running_loop().time() + self._patience.pause_s(tries)
        heapq.heappush(self._later, (due_s, row.outbox_no, row))
        self._committed.set()  # who waits for rows waits for this one from now on
        return True

    def _refuse(self, row: Outgoing, reason: str) -> None:
        self._alone.discard(row.outbox_no)
        self._refused.append((row, reason))
        self._to_keep.set()
        self._log("message refused", outbox_no=row.outbox_no, topic=row.topic, reason=reason)

    def _delivered(self, rows: list[Outgoing], reason: int) -> None:
        self.unheard += len(rows) if reason == NO_SUBSCRIBER else 0
        self.delivered += len(rows)
        if self._hold.probing:
            self._hold.accepted()
        if self._tries:
            self._tries.pop(rows[0].outbox_no, None)
        if self._alone:
            self._alone.difference_update(row.outbox_no for row in rows)
        for row in rows:
            self._outbox.ended(row.outbox_no)
        if self._outbox.unmarked >= MARK_ROWS:
            self._to_keep.set()

    async def run(self) -> None:
        """Publish for ever; what ends one part of it ends the whole."""
        parts = [
            asyncio.ensure_future(part)
            for part in (self._send_for_ever(), self._mark_for_ever(), self._ask_for_ever())
        ]
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
        finally:
            for one in parts:
                one.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _send_for_ever(self) -> None:
        while True:
            await self._broker.connected.wait()
            await self._fill()

    async def _fill(self) -> None:
        """Bring the window to its full width, or wait until there is something to do."""
        if await self._waits():
            return
        room = self._room()
        if room <= 0:
            await self._until_room()
            return
        if not self._ready:
            self._committed.clear()
            rows = await self._outbox.after(self._cursor, _READ_ROWS)
            if rows:
                # Never from _ready: while this was read, refused rows may have come back there.
                self._cursor = rows[-1].outbox_no
                self._together = len(rows) > _BACKLOG_ROWS
                self._ready.extend(rows)
            elif not self._ready:
                await self._until_rows()
                return
        while room > 0 and self._ready:
            self._send(self._next())
            room = self._room()

    def _send(self, rows: list[Outgoing]) -> None:
        topic, payload = rows[0].topic, rows[0].payload
        if len(rows) > 1:
            topic, payload = self._batch.topic, join([row.payload for row in rows])
        if packet_bytes(topic, payload) > self._broker.maximum_packet_bytes:
            self._answered(rows, TOO_LARGE)
            return
        self._flying.add(self._broker.publish(topic, payload), rows)

    def _room(self) -> int:
        """Return how many messages may be sent now; not above 0: none."""
        window = 1 if self._hold.probing else self._window
        if self._flying.payload_bytes >= _FLYING_BYTES or len(self._refused) >= _REFUSED_ROWS:
            return 0
        if self._flying.far_ahead:
            return 0
        return min(window, self._broker.receive_maximum - self.lent) - len(self._flying)

    @property
    def has_no_room(self) -> bool:
        """Tell whether the broker takes nothing beside what is in flight, or nothing at all."""
        return self._hold.probing or len(self._flying) >= self._broker.receive_maximum

    async def _waits(self) -> bool:
        """Bear what the broker refused for the moment; tell whether a pause was made for it."""
        if not self._later and not self._hold.probing:
            return False
        now_s = asyncio.get_running_loop().time()
        pause_s = self._hold.left_s(now_s)
        due: list[Outgoing] = []
        while self._later and self._later[0][0] <= now_s:
            due.append(heapq.heappop(self._later)[2])
        if due:
            self._again(due)
        crowded = len(self._later) >= _LATER_ROWS
        if self._later and (crowded or self._cursor - self._outbox.done > _AHEAD_ROWS):
            pause_s = max(pause_s, self._later[0][0] - now_s)
        await asyncio.sleep(min(pause_s, _PAUSE_S))
        return pause_s > 0

    def _next(self) -> list[Outgoing]:
        """Take what goes into the next message: one row, or readings while a backlog drains."""
        rows = [self._ready.popleft()]
        if not self._together or not self._joins(rows[0]):
            return rows
        left_bytes = batch_bytes(self._broker.maximum_packet_bytes) - len(rows[0].payload)
        while self._ready and len(rows) < self._batch.rows and self._joins(self._ready[0]):
            left_bytes -= len(self._ready[0].payload) + 1
            if left_bytes < 0:
                break
            rows.append(self._ready.popleft())
        return rows

    def _joins(self, row: Outgoing) -> bool:
        return row.reading is not None and row.outbox_no not in self._alone

    async def _until_room(self) -> None:
        self._freed.clear()
        if self._room() <= 0:
            await _within(_PAUSE_S, self._freed)

    async def _until_rows(self) -> None:
        put_off = bool(self._later) or self._hold.probing
        await _within(_PAUSE_S if put_off else _IDLE_S, self._committed)

    async def _mark_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        carried_at = loop.time()
        while True:
            await _within(min(_LOOK_S, self._mark_s), self._to_keep)
            self._to_keep.clear()
            try:
                await self._bury()
                if not self._outbox.unmarked:
                    carried_at = loop.time()
                elif (
                    self._outbox.unmarked >= MARK_ROWS or loop.time() - carried_at >= self._mark_s
                ):
                    await self._outbox.write_mark()
            except StoreFull:
                pass  # what is not marked is sent again after a restart; ingest says the rest
            await asyncio.sleep(_PACE_S)

    async def _ask_for_ever(self) -> None:
        """A broker that answers pings and owes a PUBACK would hold the mark for ever.

        On its own: what is refused may wait for room on the disk for hours.
        """
        loop = asyncio.get_running_loop()
        look_s = min(_LOOK_S, self._flying.puback_s / _LOOKS_A_PUBACK)
        while True:
            await asyncio.sleep(look_s)
            connected = self._broker.connected.is_set()
            overdue = self._flying.overdue(loop.time(), connected=connected)
            if overdue is not None:
                self._log("no PUBACK: connecting anew", outbox_no=overdue.rows[0].outbox_no)
                self._broker.renew()

    async def _bury(self) -> None:
        async with self._burying:
            while refused := list(self._refused):
                await self._keep(refused)
                for message, _ in refused:
                    self._outbox.ended(message.outbox_no)
                del self._refused[: len(refused)]
                self._freed.set()

    async def mark(self) -> None:
        """Store how far the outbox is done."""
        await self._bury()
        await self._outbox.write_mark()

    async def mark_within(self, timeout_s: float) -> None:
        """Mark if the disk has room by then; what is not marked is sent again after a restart."""
        with contextlib.suppress(TimeoutError, StoreFull):
            async with asyncio.timeout(timeout_s):
                await self.mark()

    async def settle(self, timeout_s: float) -> None:
        """Wait for what is in flight, then mark what came back: at most timeout_s for each."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._flying and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        await self.mark_within(timeout_s)
