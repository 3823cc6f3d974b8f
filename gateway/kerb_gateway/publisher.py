"""Takes rows out of the outbox and to the broker; a row ends only on its PUBACK.

Rule: rows go out in their order, a bounded number unacknowledged; what the broker refuses for
good is kept with the dead letters, never thrown away. How far the outbox is done is stored with
the next batch of readings, or after many rows: writing it after each PUBACK would wear the card.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from kerb_gateway.errors import StoreFull
from kerb_gateway.store.outbox import MARK_ROWS, Outbox, Outgoing

_REFUSED = 0x80  # MQTT 5, 2.4: reason codes from here on are failures
_NO_SUBSCRIBER = 0x10
_QUOTA_EXCEEDED = 0x97
_PAUSE_S = 0.5
_LOOK_S = 0.25
_READ_ROWS = 1024

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
        self,
        outbox: Outbox,
        broker: Broker,
        committed: asyncio.Event,
        log: Log,
        *,
        in_flight: int,
        mark_s: float,
        bury: Callable[[Outgoing, str], Awaitable[None]],
    ) -> None:
        """mark_s: after so long without a batch that carries it, the mark is stored by itself;
        bury: keeps what was refused for good, durably, before the mark may pass it.
        """
        self._keep = bury
        self._mark_s = mark_s
        self._outbox = outbox
        self._broker = broker
        self._committed = committed
        self._log = log
        self._window = in_flight
        self._cursor = outbox.done
        self._ready: deque[Outgoing] = deque()
        self._flying: dict[int, Outgoing] = {}
        self._refused: list[tuple[Outgoing, str]] = []
        self._freed = asyncio.Event()
        self.delivered = 0
        self.unheard = 0
        broker.on_acked = self._acked

    def _acked(self, mid: int, reason: int) -> None:
        message = self._flying.pop(mid, None)
        self._freed.set()
        if message is None:
            return  # the availability message, or one of a session before this start
        if reason == _QUOTA_EXCEEDED:
            self._ready.appendleft(message)  # not now: it goes out again
        elif reason >= _REFUSED:
            self._refused.append((message, f"0x{reason:02x}"))
            self._log(
                "message refused",
                outbox_no=message.outbox_no,
                topic=message.topic,
                reason=f"0x{reason:02x}",
            )
        else:
            self.unheard += reason == _NO_SUBSCRIBER
            self.delivered += 1
            self._outbox.ended(message.outbox_no)

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
        if room <= 0:
            await self._idle(self._freed)
            return
        if not self._ready:
            self._committed.clear()
            self._ready.extend(await self._outbox.after(self._cursor, _READ_ROWS))
            if not self._ready:
                await self._idle(self._committed)
                return
            self._cursor = self._ready[-1].outbox_no
        for _ in range(min(room, len(self._ready))):
            message = self._ready.popleft()
            self._flying[self._broker.publish(message.topic, message.payload)] = message

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
        loop = asyncio.get_running_loop()
        carried_at = loop.time()
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._bury()
                if not self._outbox.unmarked:
                    carried_at = loop.time()
                elif (
                    self._outbox.unmarked >= MARK_ROWS or loop.time() - carried_at >= self._mark_s
                ):
                    await self._outbox.write_mark()
            except StoreFull:
                continue  # what is not marked is sent again after a restart; ingest says the rest

    async def _bury(self) -> None:
        while self._refused:
            message, reason = self._refused[0]
            await self._keep(message, reason)
            self._outbox.ended(message.outbox_no)
            self._refused.pop(0)

    async def mark(self) -> None:
        """Store how far the outbox is done."""
        await self._bury()
        await self._outbox.write_mark()

    async def settle(self, timeout_s: float) -> None:
        """Wait for what is in flight, at most timeout_s, and mark what came back."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._flying and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        await self.mark()
