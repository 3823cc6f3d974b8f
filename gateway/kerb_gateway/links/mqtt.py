"""paho in the event loop: a connection to the gateway's own broker, read and written in bunches.

Rule: nothing of ours runs inside paho's callbacks but a hand-over to a bounded queue; a message is
acknowledged by hand, in the order of arrival; with `window` of them unacknowledged the socket is
not read any more. What goes wrong leaves this file as LinkDown.

paho's own thread costs a hand-over of the interpreter for each message, and paho reads a packet
with four system calls: both together are more than the rest of a reading's way. So the event loop
drives it (paho's documented loop_read, loop_write, loop_misc) over a socket with a buffer.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from kerb_gateway.config import NodesMqttPart
from kerb_gateway.errors import LinkDown

_SESSION_EXPIRY_S = 7 * 86400
_CONNECT_S = 10.0
_MISC_S = 1.0
_PACKETS_A_TURN = 256  # then others get theirs
_READ_BYTES = 65536
_UNSENT_BYTES = 1 << 20  # beyond them paho keeps its packets
_REFUSED = 0x80

Log = Callable[..., Any]


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message; `connection` tells which connection its `mid` (0: QoS 0) belongs to."""

    topic: str
    payload: bytes
    retained: bool
    mid: int
    connection: int


class BufferedSocket:
    """A non-blocking socket that is read and written in large pieces."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._in = b""
        self._at = 0
        self._out = bytearray()

    def recv(self, size: int) -> bytes:
        """Return at most `size` bytes; BlockingIOError when there are none."""
        if self._at >= len(self._in):
            self._in, self._at = self._inner.recv(_READ_BYTES), 0
        piece = self._in[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def pending(self) -> int:
        """Return how many bytes were read and not yet taken."""
        return len(self._in) - self._at

    def send(self, data: bytes) -> int:
        """Take bytes for the next flush; BlockingIOError when too many wait."""
        if len(self._out) > _UNSENT_BYTES:
            raise BlockingIOError
        self._out += data
        return len(data)

    def flush(self) -> bool:
        """Send what the kernel takes; tell whether that was all. OSError when the peer is gone."""
        while self._out:
            try:
                sent = self._inner.send(self._out)
            except BlockingIOError:
                return False
            del self._out[:sent]
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Client(mqtt.Client):
    """paho over a BufferedSocket."""

    def _create_socket(self) -> Any:
        plain: Any = super()._create_socket()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return BufferedSocket(plain)

    def _handle_on_message(self, message: mqtt.MQTTMessage) -> None:
        """Hand over without paho's search for callbacks by topic, of which there are none here.

        If a later paho does not ask for this any more, it searches again, and nothing is lost.
        """
        if self.on_message is not None:
            self.on_message(self, None, message)


class LocalBroker:
    """The subscription to the nodes' messages; run() keeps one connection until it breaks."""

    def __init__(
        self, part: NodesMqttPart, client_id: str, topic: str, password: str | None, log: Log
    ) -> None:
        self._part, self._topic, self._password = part, topic, password
        self._client_id = client_id
        self._log = log
        self._client: mqtt.Client | None = None
        self._socket: BufferedSocket | None = None
        self._connection = 0
        self._unacked = 0
        self._reading = False
        self._said: list[tuple[str, int, str]] = []  # what CONNACK and SUBACK brought
        self._gone = asyncio.Event()
        self._why = ""
        self.connected = False  # and subscribed
        self.arrived: deque[Arrived] = deque()  # never more than the window
        self.something = asyncio.Event()  # set when messages have arrived

    # --- paho's callbacks: hand over only ---

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        self._unacked += 1
        try:
            topic = message.topic
        except UnicodeDecodeError:  # MQTT 5, 1.5.4: no broker may pass it on; raised it ends us
            topic = ""
        self.arrived.append(
            Arrived(
                topic,
                bytes(message.payload),
                message.retain,
                message.mid if message.qos else 0,
                self._connection,
            )
        )

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._said.append(("connect", reason.value, str(reason)))

    def _on_subscribe(self, _c: Any, _u: Any, _m: Any, reasons: Any, _p: Any) -> None:
        self._said.append(("subscribe", reasons[0].value, str(reasons[0])))

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._said.append(("disconnect", reason.value, str(reason)))

    # --- the connection ---

    def _make(self) -> _Client:
        five = self._part.protocol == "5"
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            clean_session=None if five else False,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        if self._part.username is not None:
            client.username_pw_set(self._part.username, self._password)
        client.connect_timeout = _CONNECT_S
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        # Set so that paho leaves the writing to flush(); who wrote last says when.
        client.on_socket_register_write = lambda *_: None
        return client

    def _connect(self, client: _Client) -> None:
        arguments: dict[str, Any] = {}
        if self._part.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _SESSION_EXPIRY_S
            properties.ReceiveMaximum = self._part.window
            arguments = {"clean_start": False, "properties": properties}
        client.connect(self._part.host, self._part.port, self._part.keepalive_s, **arguments)

    async def run(self) -> None:
        """Connect, subscribe and stay until the connection breaks: LinkDown."""
        loop = asyncio.get_running_loop()
        client = self._make()
        try:
            await loop.run_in_executor(None, self._connect, client)
        except OSError as error:
            raise LinkDown(f"{self._part.host}:{self._part.port}: {error}") from error
        self._begin(client)
        try:
            while not self._gone.is_set():
                try:
                    await asyncio.wait_for(self._gone.wait(), _MISC_S)
                except TimeoutError:
                    if client.loop_misc() != mqtt.MQTT_ERR_SUCCESS:
                        self._lost("no answer to a ping")
                    self._write()
            raise LinkDown(f"{self._part.host}:{self._part.port}: {self._why}")
        finally:
            self._end(client)

    def _begin(self, client: _Client) -> None:
        self._client, self._socket = client, client.socket()  # type: ignore[assignment]
        self._connection += 1
        self._unacked = 0
        self._gone.clear()
        self._said.clear()
        self._watch()
        self._write()

    def _end(self, client: _Client) -> None:
        """Close; what was not acknowledged comes again, so what was not looked at may go."""
        self._unwatch()
        self.connected = False
        self.arrived.clear()
        client.disconnect()
        self._write()
        self._client = self._socket = None
        client.loop_misc()

    def _lost(self, why: str) -> None:
        if not self._gone.is_set():
            self._why = why
            self._unwatch()
            self.connected = False
            self._gone.set()

    # --- reading ---

    def _watch(self) -> None:
        if self._socket is not None and not self._reading:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _unwatch(self) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
        self._reading = False

    def _read(self) -> None:
        """Take packets until there are none, others want their turn or the window is full."""
        client, source = self._client, self._socket
        if client is None or source is None or not self._reading:
            return
        for _ in range(_PACKETS_A_TURN):
            if self._unacked >= self._part.window:
                self._unwatch()
                break
            if client.loop_read() != mqtt.MQTT_ERR_SUCCESS or client.socket() is None:
                self._settle()
                self._lost(self._why or "the broker has closed it")
                break
            if not source.pending():
                break
        else:
            asyncio.get_running_loop().call_soon(self._read)
        self._settle()
        if self.arrived:
            self.something.set()
        self._write()

    def _settle(self) -> None:
        """Deal with what the callbacks have noted."""
        while self._said and self._client is not None:
            what, code, text = self._said.pop(0)
            if what == "disconnect":
                self._why = text
            elif code >= _REFUSED:
                self._lost(f"{what} refused: {text}")
            elif what == "connect":
                self._client.subscribe(self._topic, qos=1)
            else:
                self.connected = True
                self._log(
                    "nodes' broker connected", host=self._part.host, port=self._part.port,
                    topic=self._topic,
                )  # fmt: skip

    # --- writing ---

    def _write(self) -> None:
        client, target = self._client, self._socket
        if client is None or target is None or client.socket() is None:
            return
        client.loop_write()
        loop = asyncio.get_running_loop()
        try:
            done = target.flush() and not client.want_write()
        except OSError as error:
            self._lost(str(error))
            return
        if done:
            loop.remove_writer(target.fileno())
        else:
            loop.add_writer(target.fileno(), self._write)

    def ack(self, messages: list[Arrived]) -> None:
        """Acknowledge messages, the oldest first; those of an older connection come again."""
        client = self._client
        if client is None:
            return
        for message in messages:
            if message.connection == self._connection:
                if message.mid:
                    client.ack(message.mid, 1)
                self._unacked -= 1
        self._write()
        if not self._reading and not self._gone.is_set() and self._unacked < self._part.window:
            self._watch()
            asyncio.get_running_loop().call_soon(self._read)  # the buffer may hold some

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Leave retained messages, each (topic, payload), together.

        The next version of one replaces one that is lost (QoS 0).
        """
        if self._client is not None:
            for topic, payload in messages:
                self._client.publish(topic, payload, qos=0, retain=True)
            self._write()
