"""The broker with its subscribers, and the client that each gateway talks to.

Rule: QoS 1 both ways: what was not acknowledged comes again after each new connection, as paho and
brokers do it; messages reach all subscribers in the one order in which the broker took them; a
refusal is decided before a message was ever taken, never after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from kerb_gateway.uplink.mqtt import Incoming

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Street

_TRIP_S = 0.05
_DOWN_S = (0.05, 1.5)  # from the broker to a subscriber
_AGAIN_S = 2.0
_NO_SUBSCRIBER = 0x10
_QUOTA_EXCEEDED = 0x97
_PAYLOAD_INVALID = 0x99
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
        self.up = True

    def take(self, house: House, topic: str, payload: bytes) -> int:
        """Take a message or refuse it; returns the reason code of its PUBACK."""
        street = self._street
        if not street.calm and not house.judge.has_arrived(topic, payload):
            refusal = self._refusal(topic)
            if refusal:
                street.trace.note(f"refused {refusal:02x} {topic}")
                return refusal
        house.judge.delivered(topic, payload)
        quiet = not street.calm and self._random.random() < street.odds.no_subscriber
        return _NO_SUBSCRIBER if quiet else 0

    def _refusal(self, topic: str) -> int:
        odds, draw = self._street.odds, self._random.random()
        if draw < odds.quota:
            return _QUOTA_EXCEEDED
        if topic.endswith("/batch"):
            return _TOO_LARGE if draw < odds.quota + odds.batch_refused else 0
        return _PAYLOAD_INVALID if draw < odds.quota + odds.refused else 0

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


class Client:
    """What the gateway takes for its Uplink; it lives as long as the process."""

    def __init__(self, house: House, random: Random) -> None:
        self.connected = asyncio.Event()
        self.linked = False
        self.receive_maximum = random.choice((10, 20, 65535))
        self.maximum_packet_bytes = random.choice((4096, 20000, 268435455))
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self.on_command: Callable[[Incoming], None] = lambda incoming: None
        self.watched: list[tuple[str, int]] = []
        self.on_watched: Callable[[Incoming], None] = self.ack
        self.is_watched: Callable[[str], bool] = lambda topic: False
        self.on_connection: Callable[[bool, bool], None] = lambda connected, kept: None
        self._house = house
        self._broker = house.street.broker
        self._timeline = house.timeline
        self._random = random
        self._next_mid = 1
        self._unacked: dict[int, tuple[str, bytes, float | None]] = {}
        self._sent: list[int] = []
        self._alive = True
        self._cut_until_s = 0.0

    def start(self) -> None:
        """Connect as soon as the broker is there."""
        if self._broker.up:
            self._timeline.after(_AGAIN_S, self.begin)

    def begin(self) -> None:
        """A connection stands: what was not acknowledged goes out again, in its order."""
        if not self._alive or not self._broker.up or self.linked:
            return
        if self._timeline.now_s < self._cut_until_s:
            return
        _, kept = self._broker.session(self._house)
        self._house.street.owners.disturbed()
        self.linked = True
        self._house.call_soon(self.on_connection, True, kept)
        for mid in self._unacked:
            self._send(mid)
        self._house.call_soon(self.connected.set)
        self._broker.welcome(self._house)

    def cut(self, for_s: float) -> None:
        """Its way to the broker is gone for a while; others still have theirs."""
        self._cut_until_s = self._timeline.now_s + for_s
        self.lost()
        self._timeline.after(for_s, self.begin)

    def lost(self) -> None:
        """The connection broke: what was on its way may have arrived, without its PUBACK."""
        if not self.linked:
            return
        for mid in self._sent[: self._random.randrange(len(self._sent) + 1)]:
            self._take(mid)
        self._sent = []
        self.linked = False
        self.connected.clear()
        self._house.street.owners.disturbed()
        self._house.call_soon(self.on_connection, False, False)

    def die(self) -> None:
        """The process is gone, and with it the connection."""
        if self._alive:
            self.lost()
            self._alive = False

    def publish(self, topic: str, payload: bytes) -> int:
        """Send with QoS 1; returns the message id."""
        return self._out(topic, payload, None)

    def retain(self, topic: str, payload: bytes, expiry_s: int | None = None) -> None:
        """Publish what the broker is to keep."""
        self._out(topic, payload, float("inf") if expiry_s is None else float(expiry_s))

    def _out(self, topic: str, payload: bytes, kept_s: float | None) -> int:
        mid = self._next_mid
        self._next_mid += 1
        self._unacked[mid] = (topic, payload, kept_s)
        if self.linked:
            self._send(mid)
        return mid

    def _send(self, mid: int) -> None:
        if not self._sent:
            self._timeline.after(_TRIP_S, self._arrive)
        self._sent.append(mid)

    def _take(self, mid: int) -> int:
        topic, payload, kept_s = self._unacked[mid]
        if kept_s is None:
            return self._broker.take(self._house, topic, payload)
        self._broker.keep(topic, payload, self._timeline.now_s + kept_s)
        return 0

    def _arrive(self) -> None:
        """What was sent is with the broker now; its PUBACKs come back in the same order."""
        sent, self._sent = self._sent, []
        if not sent:
            return
        acks = []
        for mid in sent:
            acks.append((mid, self._take(mid)))
            del self._unacked[mid]
        self._house.call_soon(self._take_acks, acks)

    def _take_acks(self, acks: list[tuple[int, int]]) -> None:
        for mid, reason in acks:
            self.on_acked(mid, reason)

    def arrived(self, incoming: Incoming) -> None:
        """A message has come down."""
        if self.is_watched(incoming.topic):
            self.on_watched(incoming)
        else:
            self.on_command(incoming)

    def ack(self, incoming: Incoming) -> None:
        """Acknowledge a message to the broker."""
        if self.linked:
            self._broker.acked(self._house, incoming.mid)

    async def stop(self, timeout_s: float) -> None:
        """Disconnect."""
        await asyncio.sleep(0)
        self.die()
