"""What a broker's PUBACK means for a message: the reason codes of MQTT 5, 3.4.2.1.

Rule: below 0x80 it is delivered; what speaks of us or of the moment is tried again, with a pause
that grows and has an end; what speaks of the message is refused for good. A code that MQTT 5 does
not give to PUBACK is refused for good too: the message is then kept, and a person sees it.
docs/mqtt-topics.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass

DELIVERED = "delivered"
HOLD = "hold"  # the whole flow waits: the broker has no room for us now
AGAIN = "again"  # this message waits, some times; then it is refused for good
REFUSED = "refused"

NO_SUBSCRIBER = 0x10
FAILURES = 0x80  # MQTT 5, 2.4: reason codes from here on are failures

PUBACK = {
    0x00: ("Success", DELIVERED),
    NO_SUBSCRIBER: ("No matching subscribers", DELIVERED),
    0x80: ("Unspecified error", AGAIN),
    0x83: ("Implementation specific error", AGAIN),
    0x87: ("Not authorized", REFUSED),
    0x90: ("Topic Name invalid", REFUSED),
    0x91: ("Packet identifier in use", AGAIN),
    0x97: ("Quota exceeded", HOLD),
    0x99: ("Payload format invalid", REFUSED),
}


def verdict(reason: int) -> str:
    """Return what to do with a message whose PUBACK has this reason code."""
    known = PUBACK.get(reason)
    if known is not None:
        return known[1]
    return REFUSED if reason >= FAILURES else DELIVERED


@dataclass(frozen=True)
class Patience:
    """How refusals of the moment are borne."""

    first_s: float = 1.0
    last_s: float = 60.0
    tries: int = 8  # of one message, the first included

    def pause_s(self, refusals: int) -> float:
        """Return the pause after so many refusals in a row (1, 2, ...)."""
        return min(self.last_s, self.first_s * 2.0 ** min(refusals - 1, 30))


class Hold:
    """The pause of the whole flow; after it one message alone asks whether there is room again."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._refusals = 0
        self._until_s = 0.0

    def refused(self, now_s: float) -> bool:
        """Note that the broker has no room; tell whether a new pause begins with it.

        What was in flight when a pause began and comes back within it, does not prolong it.
        """
        if now_s < self._until_s:
            return False
        self._refusals += 1
        self._until_s = now_s + self._patience.pause_s(self._refusals)
        return True

    def accepted(self) -> None:
        """Note that there is room."""
        self._refusals = 0
        self._until_s = 0.0

    @property
    def probing(self) -> bool:
        """Tell whether only one message may be in flight."""
        return self._refusals > 0

    def left_s(self, now_s: float) -> float:
        """Return how long nothing may be sent."""
        return max(0.0, self._until_s - now_s)
