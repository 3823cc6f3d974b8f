"""The MQTT client: paho in its own thread, and a hand-over to the event loop.

Rule: nothing of ours runs inside paho's callbacks but call_soon_threadsafe, and what must be
settled before paho sends anything again; how many messages are in flight is decided by the
publisher, not by paho's queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MessageState
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from kerb_gateway.uplink.refusals import FAILURES
from kerb_gateway.uplink.sizes import TOO_LARGE, packet_bytes

_SESSION_EXPIRY_S = 7 * 86400
_RECONNECT_FIRST_S = 1
_RECONNECT_LAST_S = 60
_RECEIVE_MAX_DEFAULT = 65535
_RECEIVE_AT_MOST = 60  # less than the queues of whoever takes what comes down
_EXPIRY_BYTES = 5  # of a Message Expiry Interval (MQTT 5, 3.3.2.3.3)
_PACKET_MAX_BYTES = 268_435_455  # MQTT 5, 2.1.4: what a length can say
_IDS = 65_535  # MQTT 5, 2.2.1; far more than may ever be unacknowledged
_SUCCESS = 0x00
_UNSUPPORTED_PROTOCOL = 0x84
_HANDSHAKES_BEFORE_FALLBACK = 2

Log = Callable[..., Any]


@dataclass(frozen=True)
class Incoming:
    """A command message; ack() tells the broker that it is stored."""

    topic: str
    payload: bytes
    retained: bool
    mid: int
    qos: int


def _hold_back(client: mqtt.Client, receive_maximum: int, packet_maximum: int) -> list[int]:
    """Let paho send again only what the broker takes now; the rest follows, one at each PUBACK.

    Returns the ids of what has become too large: never sent again, or the broker hangs up on it
    for ever. paho marks all of it to be sent before it knows the CONNACK, and calls on_connect
    before it sends: between the two the broker may have taken less than the last time.
    """
    with client._out_message_mutex:
        too_large = [
            mid
            for mid, message in client._out_messages.items()
            if packet_bytes(message.topic, message.payload) > packet_maximum
        ]
        for mid in too_large:
            del client._out_messages[mid]
        again = list(client._out_messages.values())
        # Not always: with a limit paho looks through everything in flight at each PUBACK. Its own
        # setter refuses to act on a connection, which is there by now.
        client._max_inflight_messages = 0 if len(again) <= receive_maximum else receive_maximum
        for message in again[receive_maximum:]:
            message.state = MessageState.MQTT_MS_QUEUED
    return too_large


class Uplink:
    """A connection to the broker; the handlers are called in the event loop."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: str,
        availability: str,
        commands: str,
        username: str | None,
        password: str | None,
        keepalive_s: int,
        protocol: str,
        log: Log,
        reconnect_last_s: int = _RECONNECT_LAST_S,
    ) -> None:
        self._host, self._port, self._keepalive_s = host, port, keepalive_s
        self._client_id, self._availability, self._commands = client_id, availability, commands
        self._username, self._password = username, password
        self._may_fall_back = protocol == "auto"
        self._version = mqtt.MQTTv311 if protocol == "3.1.1" else mqtt.MQTTv5
        self._reconnect_last_s = reconnect_last_s
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._broken_handshakes = 0
        self._acks: deque[tuple[int, int]] = deque()  # never more than the publisher's window
        self._acks_due = False
        self._rows_out: set[int] = set()  # ids of publish(), until their PUBACK
        self.connected = asyncio.Event()
        self.receive_maximum = _RECEIVE_MAX_DEFAULT
        self.maximum_packet_bytes = _PACKET_MAX_BYTES
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self.on_command: Callable[[Incoming], None] = lambda incoming: None
        self.watched: list[tuple[str, int]] = []  # other topic filters, each with its QoS
        self.on_watched: Callable[[Incoming], None] = self.ack
        self.is_watched: Callable[[str], bool] = lambda topic: False
        self.on_connection: Callable[[bool, bool], None] = lambda connected, kept: None
        self._client = self._make()

    @property
    def protocol(self) -> str:
        """The version of MQTT that is spoken, or tried."""
        return "5" if self._version == mqtt.MQTTv5 else "3.1.1"

    def _make(self) -> mqtt.Client:
        five = self._version == mqtt.MQTTv5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._version,
            clean_session=None if five else False,
            manual_ack=True,
        )
        if self._username is not None:
            client.username_pw_set(self._username, self._password)
        client.will_set(self._availability, b"offline", qos=1, retain=True)
        client.reconnect_delay_set(_RECONNECT_FIRST_S, self._reconnect_last_s)
        # The window is the publisher's; paho must never queue behind it.
        client.max_inflight_messages_set(0)
        client.on_connect = self._connected
        client.on_connect_fail = lambda *_: self._hand_over(self._failed, "no connection")
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_message = self._arrived
        return client

    def start(self) -> None:
        """Begin to connect; reconnects by itself for ever, with a growing pause."""
        arguments: dict[str, Any] = {}
        if self._version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _SESSION_EXPIRY_S
            # The broker holds back what the commands' queue could not take.
            properties.ReceiveMaximum = _RECEIVE_AT_MOST
            arguments = {"clean_start": False, "properties": properties}
        self._client.connect_async(self._host, self._port, self._keepalive_s, **arguments)
        self._client.loop_start()

    # --- callbacks: paho's thread, hand over only ---

    def _hand_over(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _connected(self, client: Any, _u: Any, flags: Any, reason: Any, properties: Any) -> None:
        limits = (
            getattr(properties, "ReceiveMaximum", _RECEIVE_MAX_DEFAULT),
            getattr(properties, "MaximumPacketSize", _PACKET_MAX_BYTES),
        )
        too_large = _hold_back(client, *limits)
        kept = bool(flags.session_present)
        self._hand_over(self._on_connected, reason.value, str(reason), limits, kept, too_large)

    def _disconnected(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._hand_over(self._on_disconnected, str(reason))

    def _subscribed(self, _c: Any, _u: Any, _m: int, reasons: Any, _p: Any) -> None:
        self._hand_over(self._on_subscribed, [reason.value for reason in reasons])

    def _published(self, _c: Any, _u: Any, mid: int, reason: Any, _p: Any) -> None:
        self._acks.append((mid, reason.value))
        if not self._acks_due:  # one call for as many as come before it runs
            self._acks_due = True
            self._hand_over(self._take_acks)

    def _arrived(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # MQTT 5, 1.5.4: no broker may pass it on; raised it ends paho
            topic = ""
        incoming = Incoming(
            topic, bytes(message.payload), message.retain, message.mid, message.qos
        )
        self._hand_over(self._on_arrived, incoming)

    # --- the event loop's side ---

    def _on_connected(
        self, code: int, text: str, limits: tuple[int, int], kept: bool, too_large: list[int]
    ) -> None:
        if code != _SUCCESS:
            if code != _UNSUPPORTED_PROTOCOL:
                self._may_fall_back = False  # who refuses in MQTT 5 speaks it
            self._failed(text, code)
            return
        # From here on rows may be in flight, by the ids of this client: another one would count
        # from 1 again, and neither send them again nor know whose PUBACK comes.
        self._may_fall_back = False
        self.receive_maximum, self.maximum_packet_bytes = limits
        if too_large:
            self._log("messages in flight are too large for the broker", count=len(too_large))
            self._acks.extend((mid, TOO_LARGE) for mid in too_large)
            self._take_acks()
        # paho calls on_connect before it sends again what is unacknowledged. The answer to this
        # comes after that: only then may anything new follow, or it would overtake what is older.
        self._client.subscribe([(self._commands, 1), *self.watched])
        self.on_connection(True, kept)
        # QoS 0: the broker's Receive Maximum counts the others, and the whole of it is the rows'.
        self._client.publish(self._availability, b"online", qos=0, retain=True)
        self._log(
            "uplink connected",
            host=self._host,
            port=self._port,
            protocol=self.protocol,
        )

    def _on_subscribed(self, codes: list[int]) -> None:
        asked = [self._commands, *(topic for topic, _ in self.watched)]
        for topic, code in zip(asked, codes, strict=False):  # as many as the broker says
            if code >= FAILURES:
                self._log("subscription refused", topic=topic, reason=f"0x{code:02x}")
        self.connected.set()  # whatever it said: readings do not wait for commands

    def _on_disconnected(self, why: str) -> None:
        if self.connected.is_set():
            self._log("uplink lost", why=why)
        else:
            self._failed(why)
        self.connected.clear()
        self.on_connection(False, False)

    def _failed(self, why: str, code: int | None = None) -> None:
        self._log("uplink not connected", host=self._host, port=self._port, why=why)
        if why == "no connection" or not self._may_fall_back or self._version != mqtt.MQTTv5:
            return
        self._broken_handshakes += 1
        if code == _UNSUPPORTED_PROTOCOL or self._broken_handshakes >= _HANDSHAKES_BEFORE_FALLBACK:
            self._log("broker does not speak MQTT 5, trying 3.1.1")
            self._client.disconnect()
            self._client.loop_stop()
            self._version = mqtt.MQTTv311
            self._client = self._make()
            self.start()

    def _take_acks(self) -> None:
        self._acks_due = False  # first: what arrives from here on calls again
        while self._acks:
            mid, reason = self._acks.popleft()
            if mid in self._rows_out:  # paho says the same of our availability and of retain()
                self._rows_out.discard(mid)
                self.on_acked(mid, reason)

    def _on_arrived(self, incoming: Incoming) -> None:
        if self.is_watched(incoming.topic):
            self.on_watched(incoming)
        else:
            self.on_command(incoming)

    def publish(self, topic: str, payload: bytes) -> int:
        """Send with QoS 1; returns the message id that on_acked will name."""
        mid = self._send(topic, payload)
        self._rows_out.add(mid)
        return mid

    def _send(self, topic: str, payload: bytes, **more: Any) -> int:
        """Send with QoS 1 under an id that is free; returns it.

        Ids come round. Under one whose PUBACK is still owed paho sends nothing, and says so; the
        PUBACK would be taken for this message's.
        """
        for _ in range(_IDS):
            message = self._client.publish(topic, payload, qos=1, **more)
            if message.rc != mqtt.MQTT_ERR_QUEUE_SIZE:
                break
        return message.mid

    def retain(self, topic: str, payload: bytes, expiry_s: int | None = None) -> None:
        """Publish what the broker is to keep, under MQTT 5 for expiry_s at most."""
        needed_bytes = packet_bytes(topic, payload, _EXPIRY_BYTES)
        if needed_bytes > self.maximum_packet_bytes:  # sent, it would cost us the connection
            self._log(
                "retained message is too large for the broker",
                topic=topic, needed_bytes=needed_bytes, maximum_bytes=self.maximum_packet_bytes,
            )  # fmt: skip
            return
        properties = None
        if expiry_s is not None and self._version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        self._send(topic, payload, retain=True, properties=properties)

    def ack(self, incoming: Incoming) -> None:
        """Acknowledge a message to the broker."""
        self._client.ack(incoming.mid, incoming.qos)

    def renew(self) -> None:
        """Begin the connection anew: paho's thread finds it closed and does the rest."""
        # Not disconnect(): that tells the broker goodbye, and paho not to come back.
        connection: Any = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):  # closed by now, which is what is wanted
                connection.shutdown(socket.SHUT_RDWR)

    async def stop(self, timeout_s: float) -> None:
        """Say offline and disconnect; bounded by timeout_s."""
        if self.connected.is_set():
            message = self._client.publish(self._availability, b"offline", qos=0, retain=True)
            deadline = self._loop.time() + timeout_s
            while not message.is_published() and self._loop.time() < deadline:
                await asyncio.sleep(0.02)
        self._client.disconnect()
        await self._loop.run_in_executor(None, self._client.loop_stop)
