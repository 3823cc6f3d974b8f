"""What a gateway takes for its Uplink: QoS 1 as paho does it.

Rule: what was not acknowledged goes out again after each new connection, in its order; whatever
comes from the broker is handed to the process's event loop. A PUBACK that is owed comes on no
connection that stands: the gateway has to ask for it by a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from kerb_gateway.uplink.mqtt import Incoming

from kerb_tools.simulate.chance import generator

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_TRIP_S = 0.05
_AGAIN_S = 2.0
_IDS = 65_535  # MQTT 5, 2.2.1
_TAKEN = 0.5  # of the messages whose PUBACK is owed, the broker has so many
_ASKED_S = 1500.0  # ten minutes, and what the looks of a simulated publisher add to them


class Client:
    """It lives as long as the process."""

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
        self._moods = generator(house.street.seed, f"{house.name}/owed {house.lives}")
        self._last_mid = 0
        self._connections = 0
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
        self._connections += 1
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

    def renew(self) -> None:
        """Begin the connection anew."""
        self.cut(_AGAIN_S)

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
        mid = self._free_mid()
        self._unacked[mid] = (topic, payload, kept_s)
        if self.linked:
            self._send(mid)
        return mid

    def _free_mid(self) -> int:
        """Return the next id; they come round, and one whose PUBACK is owed is not used again."""
        while True:
            self._last_mid = self._last_mid % _IDS + 1
            if self._last_mid not in self._unacked:
                return self._last_mid

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
            if self._is_owed(mid):
                continue
            acks.append((mid, self._take(mid)))
            del self._unacked[mid]
        self._house.call_soon(self._take_acks, acks)

    def _is_owed(self, mid: int) -> bool:
        """Decide whether a row's PUBACK does not come, be the row with the broker or not."""
        street, moods = self._house.street, self._moods
        retained = self._unacked[mid][2] is not None  # said anew before anybody could ask for it
        if street.calm or retained or moods.random() >= street.odds.owed:
            return False
        if moods.random() < _TAKEN:
            self._take(mid)
        street.trace.note(f"{self._house.name} PUBACK owed")
        self._timeline.after(_ASKED_S, self._look_for_asked, mid, self._connections)
        return True

    def _look_for_asked(self, mid: int, connection: int) -> None:
        """By now the gateway must have begun another connection, or the row is stuck for good."""
        if self._alive and self.linked and self._connections == connection:
            self._house.judge.found("an owed PUBACK is not asked for", self._house.name, f"{mid}")

    def _take_acks(self, acks: list[tuple[int, int]]) -> None:
        for mid, reason in acks:
            self.on_acked(mid, reason)

    def arrived(self, incoming: Incoming) -> None:
        """A message has come down."""
        if self.is_watched(incoming.topic):
            self.on_watched(incoming)
        else:
            self._house.judge.commands.came(incoming)
            self.on_command(incoming)

    def ack(self, incoming: Incoming) -> None:
        """Acknowledge a message to the broker."""
        if self.linked:
            self._broker.acked(self._house, incoming.mid)

    async def stop(self, timeout_s: float) -> None:
        """Disconnect."""
        await asyncio.sleep(0)
        self.die()
