"""What is in flight to the broker: rows by the id of the message that carries them.

Rule: an id is not used again while its PUBACK is owed (MQTT 5, 2.2.1): it would end the wrong
rows. So with an old message unacknowledged only so many may follow it; and a PUBACK that does not
come on a connection that lives is asked for by a new connection, the only place where MQTT sends
again (MQTT 5, 4.4).
"""

from __future__ import annotations

import msgspec

from kerb_gateway.store.outbox import Outgoing

# Of 65,535 ids; the rest is for what travels beside the rows: replays and retained messages.
AHEAD_MESSAGES = 32768
PUBACK_S = 600.0  # a broker that is merely slow has long since answered


class Flight(msgspec.Struct, frozen=True, gc=False):
    """A message without its PUBACK; number: how many were sent before it."""

    number: int
    rows: list[Outgoing]
    payload_bytes: int


class Flights:
    """The messages without their PUBACK, in the order in which they were sent."""

    def __init__(self, puback_s: float = PUBACK_S) -> None:
        self.puback_s = puback_s
        self._by_mid: dict[int, Flight] = {}
        self._sent = 0
        self._watched: Flight | None = None
        self._watched_since_s = 0.0
        self.payload_bytes = 0

    def __len__(self) -> int:
        return len(self._by_mid)

    def add(self, mid: int, rows: list[Outgoing]) -> None:
        """Note a message that was sent."""
        size_bytes = sum([len(row.payload) for row in rows])
        self._by_mid[mid] = Flight(self._sent, rows, size_bytes)
        self._sent += 1
        self.payload_bytes += size_bytes

    def pop(self, mid: int) -> list[Outgoing] | None:
        """Return the rows of a message that is acknowledged; None if it carried none of ours."""
        flight = self._by_mid.pop(mid, None)
        if flight is None:
            return None
        self.payload_bytes -= flight.payload_bytes
        return flight.rows

    @property
    def oldest(self) -> Flight | None:
        """The message that waits longest."""
        return next(iter(self._by_mid.values()), None)

    @property
    def far_ahead(self) -> bool:
        """Tell whether too many were sent since the oldest that waits."""
        oldest = self.oldest
        return oldest is not None and self._sent - oldest.number >= AHEAD_MESSAGES

    def overdue(self, now_s: float, *, connected: bool) -> Flight | None:
        """Return the oldest if its PUBACK has not come for too long; to be asked now and then.

        Its time counts from the first question on, and again after each such answer.
        """
        oldest = self.oldest if connected else None
        if oldest is not self._watched:
            self._watched, self._watched_since_s = oldest, now_s
        if oldest is None or now_s - self._watched_since_s < self.puback_s:
            return None
        self._watched_since_s = now_s
        return oldest
