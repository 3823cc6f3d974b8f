"""A broker in memory for the recorded gateway: acknowledges, refuses, keeps back.

Rule: what it has seen and acknowledged is marked before the gateway can know of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from kerb_gateway.model import Payloads
from kerb_gateway.store.database import Store
from kerb_gateway.store.outbox import Outbox, Outgoing

from kerb_tools.faults.marks import Marks

_DELIVERED, _NO_SUBSCRIBER, _NOT_AUTHORISED, _QUOTA = 0x00, 0x10, 0x87, 0x97
_ANSWERS = (_DELIVERED, _NO_SUBSCRIBER, _NOT_AUTHORISED, _QUOTA)
_WEIGHTS = (90, 3, 4, 3)
_DEAF = 0.05  # share of messages that are not acknowledged in this life


class NumberedOutbox(Outbox):
    """The real outbox; tells the broker which number a payload has."""

    def __init__(self, store: Store, payloads: Payloads) -> None:
        super().__init__(store, payloads)
        self.numbers: dict[bytes, list[int]] = {}

    async def after(self, outbox_no: int, limit: int) -> list[Outgoing]:
        messages = await super().after(outbox_no, limit)
        for message in messages:
            self.numbers.setdefault(message.payload, []).append(message.outbox_no)
        return messages


class MemoryBroker:
    """What the publisher needs of an uplink; acknowledges as the seed says."""

    def __init__(self, outbox: NumberedOutbox, marks: Marks, rng: random.Random) -> None:
        self.connected = asyncio.Event()
        self.receive_maximum = 20
        self.maximum_packet_bytes = 65536
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self.quiet = 0  # turns since the last message
        self._outbox = outbox
        self._marks = marks
        self._rng = rng
        self._mid = 0

    def publish(self, topic: str, payload: bytes) -> int:
        """Take a message; returns its id."""
        self._mid += 1
        self.quiet = 0
        waiting = self._outbox.numbers[payload]
        # The same alarm twice has two numbers; one that is sent again keeps its own.
        number = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        self._marks.say("handed", outbox_no=number)
        if self._rng.random() > _DEAF:
            (reason,) = self._rng.choices(_ANSWERS, _WEIGHTS)
            asyncio.get_running_loop().call_soon(self._answer, self._mid, number, reason)
        return self._mid

    def renew(self) -> None:
        """Stay deaf: what was not acknowledged stays so to the end of this life."""

    def _answer(self, mid: int, number: int, reason: int) -> None:
        if reason != _QUOTA:
            self._marks.say("puback", outbox_no=number)
        self.on_acked(mid, reason)
