"""Takes rows out of the outbox and to the broker; a row ends only on its PUBACK.

Rule: rows go out in their order, a bounded number unacknowledged; what the broker refuses for
good moves to the dead letters and is counted, never away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from kerb_gateway.store.database import Operation, Store

_REFUSED = 0x80  # MQTT 5, 2.4: reason codes from here on are failures
_NO_SUBSCRIBER = 0x10
_QUOTA_EXCEEDED = 0x97
_PAUSE_S = 0.5
_MARK_S = 0.25

Log = Callable[..., Any]


class Broker(Protocol):
    """What the publisher needs of the uplink."""

    connected: asyncio.Event
    receive_maximum: int
    on_acked: Callable[[int, int], None]

    def publish(self, topic: str, payload: bytes) -> int:
        """Send; returns the message id."""


class Publisher:
    """The loop from the outbox to the broker."""

    def __init__(
        self, store: Store, broker: Broker, committed: asyncio.Event, log: Log, *, in_flight: int
    ) -> None:
        self._store = store
        self._broker = broker
        self._committed = committed
        self._log = log
        self._window = in_flight
        self._cursor = 0
        self._flying: dict[int, tuple[int, str, bytes]] = {}
        self._done: list[int] = []
        self._dead: list[tuple[int, str, bytes, str]] = []
        self._freed = asyncio.Event()
        self.delivered = 0
        self.unheard = 0
        broker.on_acked = self._acked

    def _acked(self, mid: int, reason: int) -> None:
        row = self._flying.pop(mid, None)
        self._freed.set()
        if row is None:
            return  # the availability message, or one of a session before this start
        if reason == _QUOTA_EXCEEDED:
            self._cursor = min(self._cursor, row[0] - 1)  # not now: it goes out again
        elif reason >= _REFUSED:
            self._dead.append((*row, f"0x{reason:02x}"))
            self._log("message refused", outbox_no=row[0], topic=row[1], reason=f"0x{reason:02x}")
        else:
            self.unheard += reason == _NO_SUBSCRIBER
            self.delivered += 1
            self._done.append(row[0])

    async def run(self) -> None:
        """Publish for ever."""
        marks = asyncio.ensure_future(self._mark_for_ever())
        try:
            while True:
                await self._broker.connected.wait()
                await self._fill()
        finally:
            marks.cancel()

    async def _fill(self) -> None:
        """Bring the window to its full width, or wait until there is something to do."""
        room = min(self._window, self._broker.receive_maximum) - len(self._flying)
        rows: list[tuple[Any, ...]] = []
        if room > 0:
            self._committed.clear()
            rows = await self._store.query(
                "select outbox_no, topic, payload from outbox where outbox_no > ? "
                "order by outbox_no limit ?",
                [self._cursor, room],
            )
        flying = {row[0] for row in self._flying.values()}
        for outbox_no, topic, payload in rows:
            if outbox_no not in flying and outbox_no not in self._done:
                mid = self._broker.publish(topic, payload)
                self._flying[mid] = (outbox_no, topic, payload)
            self._cursor = max(self._cursor, outbox_no)
        if not rows:
            await self._idle(self._freed if room <= 0 else self._committed)

    async def _idle(self, event: asyncio.Event) -> None:
        if event is self._freed:
            self._freed.clear()
            if len(self._flying) < min(self._window, self._broker.receive_maximum):
                return
        try:
            await asyncio.wait_for(event.wait(), _PAUSE_S)
        except TimeoutError:
            pass

    async def _mark_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_MARK_S)
            await self.mark()

    async def mark(self) -> None:
        """Take acknowledged rows out of the outbox, in one transaction."""
        done, self._done = self._done, []
        dead, self._dead = self._dead, []
        operations: list[Operation] = [
            ("delete from outbox where outbox_no = ?", [number]) for number in done
        ]
        for outbox_no, topic, payload, reason in dead:
            operations.append(
                ("insert into dead_letters values (?,?,?,?)", [outbox_no, topic, payload, reason])
            )
            operations.append(("delete from outbox where outbox_no = ?", [outbox_no]))
        await self._store.write(operations)

    async def settle(self, timeout_s: float) -> None:
        """Wait for what is in flight, at most timeout_s, and mark what came back."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._flying and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        await self.mark()
