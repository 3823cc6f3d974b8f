"""The broker: what it takes, keeps, refuses and hands on.

Rule: QoS 1: what a client has not acknowledged comes again after each new connection; messages
reach all subscribers in the one order in which the broker took them; a refusal is decided before a
message was ever taken, never after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from kerb_gateway.uplink.mqtt import Incoming

from kerb_tools.simulate.chance import generator

if TYPE_CHECKING:
    from kerb_tools.simulate.client import Client
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Street

_DOWN_S = (0.05, 1.5)  # from the broker to a subscriber
_AGAIN_S = 2.0
_NO_SUBSCRIBER = 0x10
_QUOTA_EXCEEDED = 0x97
_PAYLOAD_INVALID = 0x99
_AGAIN = (0x80, 0x83, 0x91)  # speak of the moment
_STUBBORN = 0.5  # what was put off is put off once more: of some hundred, one eight times
_TOO_LARGE = 0x95
_FOR_EVER = float("inf")


@dataclass
class Session:
    """What the broker keeps for one client: what it has not acknowledged, with its expiry."""

    queue: dict[int, tuple[Incoming, float]] = field(default_factory=dict)
    last_s: float = 0.0  # when what was sent last arrives


class Broker:
    """Takes messages and hands them on."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self._random = random
        self._next_mid = 1
        self._sessions: dict[str, Session] = {}
        self._retained: dict[str, tuple[bytes, float]] = {}
        self._forgotten: set[str] = set()
        self._moods = generator(street.seed, "broker's moods")
        self._put_off: set[tuple[str, bytes]] = set()
        self.up = True

    def take(self, house: House, topic: str, payload: bytes) -> int:
        """Take a message or refuse it; returns the reason code of its PUBACK."""
        street = self._street
        if not street.calm and not house.judge.arrivals.has_arrived(topic, payload):
            refusal = self._refusal(topic) or self._puts_off(topic, payload)
            if refusal:
                street.trace.note(f"refused {refusal:02x} {topic}")
                return refusal
        house.judge.arrivals.delivered(topic, payload)
        quiet = not street.calm and self._random.random() < street.odds.no_subscriber
        return _NO_SUBSCRIBER if quiet else 0

    def _refusal(self, topic: str) -> int:
        odds, draw = self._street.odds, self._random.random()
        if draw < odds.quota:
            return _QUOTA_EXCEEDED
        if topic.endswith("/batch"):
            return _TOO_LARGE if draw < odds.quota + odds.batch_refused else 0
        return _PAYLOAD_INVALID if draw < odds.quota + odds.refused else 0

    def _puts_off(self, topic: str, payload: bytes) -> int:
        """Decide whether a message is to come again later; returns the reason code, or 0."""
        message = (topic, payload)
        odds = _STUBBORN if message in self._put_off else self._street.odds.again
        self._put_off.discard(message)
        if self._moods.random() >= odds:
            return 0
        self._put_off.add(message)
        return self._moods.choice(_AGAIN)

    def keep(self, topic: str, payload: bytes, until_s: float) -> None:
        """Take a retained message of the group and hand it to everybody, its sender too."""
        self._street.trace.note(f"retained {topic} {payload.decode()}")
        self._street.owners.said(topic, payload)
        self._retained[topic] = (payload, until_s)
        for house in self._street.houses:
            self._hand(house, topic, payload, until_s)

    # --- outages ---

    def goes_down(self, for_s: float) -> None:
        """The connections are lost, for a while."""
        if not self.up:
            return
        self.up = False
        self._street.trace.note(f"broker down for {for_s:.0f} s")
        for house in self._street.houses:
            if house.client is not None:
                house.client.lost()
        self._street.timeline.after(for_s, self.comes_up)

    def comes_up(self) -> None:
        """It can be reached again."""
        if self.up:
            return
        self.up = True
        self._street.trace.note("broker up")
        for house in self._street.houses:
            if house.client is not None:
                house.client.begin()

    def forgets(self) -> None:
        """It starts anew without sessions and what it retained; commands are somebody else's."""
        self._street.trace.note("broker forgets")
        for house in self._street.houses:
            if house.client is not None:
                house.client.lost()
        self._retained.clear()
        for session in self._sessions.values():
            kept = {m: one for m, one in session.queue.items() if one[0].topic.endswith("/cmd")}
            session.queue = kept
        self._forgotten = set(self._sessions)
        for house in self._street.houses:
            if house.client is not None:
                self._street.timeline.after(_AGAIN_S, house.client.begin)

    # --- down to the gateways ---

    def session(self, house: House) -> tuple[Session, bool]:
        """Return a client's session as it connects, and whether it was kept."""
        kept = house.name in self._sessions and house.name not in self._forgotten
        self._forgotten.discard(house.name)
        return self._sessions.setdefault(house.name, Session()), kept

    def welcome(self, house: House) -> None:
        """Send everything again that was not acknowledged, then what is retained."""
        session = self._sessions[house.name]
        for mid in list(session.queue):
            self._send(house, session, mid)
        if len(self._street.houses) > 1:
            for topic, (payload, until_s) in self._retained.items():
                self._hand(house, topic, payload, until_s)

    def command(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        """Somebody publishes a command."""
        for house in self._street.houses:
            if house.topics.is_command(topic):
                self._hand(house, topic, payload, _FOR_EVER, retained=retained)

    def _hand(
        self, house: House, topic: str, payload: bytes, until_s: float, *, retained: bool = False
    ) -> None:
        session = self._sessions.setdefault(house.name, Session())
        mid, self._next_mid = self._next_mid, self._next_mid + 1
        connected = house.client is not None and house.client.linked
        if topic.endswith("/progress") and not connected:
            return  # QoS 0
        session.queue[mid] = (Incoming(topic, payload, retained, mid, 1), until_s)
        if connected:
            self._send(house, session, mid)

    def _send(self, house: House, session: Session, mid: int) -> None:
        at_s = max(session.last_s, self._street.timeline.now_s + self._random.uniform(*_DOWN_S))
        session.last_s = at_s
        self._street.timeline.at(at_s, self._arrive, house, house.client, session, mid)

    def _arrive(self, house: House, client: Client, session: Session, mid: int) -> None:
        """A message reaches the client, if its connection still stands."""
        if house.client is not client or not client.linked or mid not in session.queue:
            return
        incoming, until_s = session.queue[mid]
        if self._street.timeline.now_s >= until_s:
            del session.queue[mid]
            return
        house.call_soon(client.arrived, incoming)

    def acked(self, house: House, mid: int) -> None:
        """A gateway has a message."""
        self._sessions[house.name].queue.pop(mid, None)
