"""Keeps what the broker refused for good.

Rule: a row is handed to the ledger once, also when whoever waits for the COMMIT is cancelled while
the disk is full and comes again: else its loss would be declared twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kerb_gateway.publisher import Refused
from kerb_gateway.store.ledger import Ledger


class Burial:
    """What the publisher calls with its refused rows until they are durable."""

    def __init__(self, ledger: Ledger, commit: Callable[[], Awaitable[None]]) -> None:
        self._ledger = ledger
        self._commit = commit
        self._handed: set[int] = set()  # of the rows that wait: as many as the publisher bears

    async def bury(self, refused: Refused) -> None:
        """Make rows dead letters, and readings among them losses; durable on return.

        Cancelled, it is to be called with the same rows, or more, again.
        """
        for message, reason in refused:
            if message.outbox_no not in self._handed:
                self._handed.add(message.outbox_no)
                self._ledger.bury(message, reason)
        await self._commit()
        self._handed.clear()
