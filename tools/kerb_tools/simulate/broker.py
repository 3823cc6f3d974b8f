"""The broker with its subscriber, and the client that the gateway talks to.

Rule: QoS 1 both ways: what was not acknowledged comes again after each new connection, as paho and
brokers do it; a refusal is decided before a message was ever taken, never after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from kerb_gateway.uplink.mqtt import Incoming

if TYPE_CHECKING:
    from kerb_tools.simulate.street import Street

_TRIP_S = 0.05
_AGAIN_S = 2.0
_NO_SUBSCRIBER = 0x10
_QUOTA_EXCEEDED = 0x97
_PAYLOAD_INVALID = 0x99
_TOO_LARGE = 0x95


class Broker:
    """Takes messages and keeps commands for the gateway."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self._random = random
        self._next_mid = 1
        self._commands: dict[int, Incoming] = {}
        self.client: Client | None = None  # of the process that is alive
        self.up = True

    def take(self, topic: str, payload: bytes) -> int:
        """Take a message or refuse it; returns the reason code of its PUBACK."""
        street = self._street
        if not street.calm and not street.judge.has_arrived(topic, payload):
            refusal = self._refusal(topic)
            if refusal:
                street.trace.note(f"refused {refusal:02x} {topic}")
                return refusal
        street.judge.delivered(topic, payload)
        quiet = not street.calm and self._random.random() < street.odds.no_subscriber
        return _NO_SUBSCRIBER if quiet else 0

    def _refusal(self, topic: str) -> int:
        odds, draw = self._street.odds, self._random.random()
        if draw < odds.quota:
            return _QUOTA_EXCEEDED
        if topic.endswith("/batch"):
            return _TOO_LARGE if draw < odds.quota + odds.batch_refused else 0
        return _PAYLOAD_INVALID if draw < odds.quota + odds.refused else 0

    # --- outages ---

    def goes_down(self, for_s: float) -> None:
        """The connection is lost, for a while."""
        if not self.up:
            return
        self.up = False
        self._street.trace.note(f"broker down for {for_s:.0f} s")
        if self.client is not None:
            self.client.lost()
        self._street.timeline.after(for_s, self.comes_up)

    def comes_up(self) -> None:
        """It can be reached again."""
        if self.up:
            return
        self.up = True
        self._street.trace.note("broker up")
        if self.client is not None:
            self.client.begin()

    # --- commands ---

    def command(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        """Somebody publishes a command."""
        incoming = Incoming(topic, payload, retained, self._next_mid, 1)
        self._commands[self._next_mid] = incoming
        self._next_mid += 1
        if self.client is not None and self.client.connected.is_set():
            self.client.on_command(incoming)

    def deliver_commands(self, hand_over: Callable[[Incoming], None]) -> None:
        """Send everything again that was not acknowledged."""
        for incoming in list(self._commands.values()):
            hand_over(incoming)

    def command_acked(self, mid: int) -> None:
        """The gateway has a command."""
        self._commands.pop(mid, None)


class Client:
    """What the gateway takes for its Uplink; it lives as long as the process."""

    def __init__(self, street: Street, random: Random) -> None:
        self.connected = asyncio.Event()
        self.receive_maximum = random.choice((10, 20, 65535))
        self.maximum_packet_bytes = random.choice((4096, 20000, 268435455))
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self.on_command: Callable[[Incoming], None] = lambda incoming: None
        self._street = street
        self._random = random
        self._next_mid = 1
        self._unacked: dict[int, tuple[str, bytes]] = {}
        self._sent: list[int] = []
        self._alive = True

    def start(self) -> None:
        """Connect as soon as the broker is there."""
        if self._street.broker.up:
            self._street.timeline.after(_AGAIN_S, self.begin)

    def begin(self) -> None:
        """A connection stands: what was not acknowledged goes out again, in its order."""
        if not self._alive or not self._street.broker.up or self.connected.is_set():
            return
        self.connected.set()
        for mid in self._unacked:
            self._send(mid)
        self._street.broker.deliver_commands(self.on_command)

    def lost(self) -> None:
        """The connection broke: what was on its way may have arrived, without its PUBACK."""
        for mid in self._sent[: self._random.randrange(len(self._sent) + 1)]:
            self._street.broker.take(*self._unacked[mid])
        self._sent = []
        self.connected.clear()

    def die(self) -> None:
        """The process is gone, and with it the connection."""
        if self._alive:
            self.lost()
            self._alive = False

    def publish(self, topic: str, payload: bytes) -> int:
        """Send with QoS 1; returns the message id."""
        mid = self._next_mid
        self._next_mid += 1
        self._unacked[mid] = (topic, payload)
        if self.connected.is_set():
            self._send(mid)
        return mid

    def _send(self, mid: int) -> None:
        if not self._sent:
            self._street.timeline.after(_TRIP_S, self._arrive)
        self._sent.append(mid)

    def _arrive(self) -> None:
        """What was sent is with the broker now; its PUBACKs come back in the same order."""
        sent, self._sent = self._sent, []
        for mid in sent:
            reason = self._street.broker.take(*self._unacked.pop(mid))
            self.on_acked(mid, reason)

    def ack(self, incoming: Incoming) -> None:
        """Acknowledge a command to the broker."""
        if self.connected.is_set():
            self._street.broker.command_acked(incoming.mid)

    async def stop(self, timeout_s: float) -> None:
        """Disconnect."""
        await asyncio.sleep(0)
        self.die()
