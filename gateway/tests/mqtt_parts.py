"""A broker that a test scripts, and a proxy that counts: MQTT 5 packets, read by length.

Rule: no library in between, so that what is counted is what went over the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 12
_RECEIVE_MAXIMUM = 0x21
_MAXIMUM_PACKET_SIZE = 0x27
_SESSION_PRESENT = 1


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """Return one packet; its body has fewer than 128 bytes."""
    assert len(body) < 128
    return bytes([kind << 4 | flags, len(body)]) + body


class Packets:
    """Cuts a byte stream into (first byte, body)."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._held += data
        found = []
        while True:
            at, size, shift = 1, 0, 0
            while at < len(self._held):
                size |= (self._held[at] & 127) << shift
                shift += 7
                at += 1
                if not self._held[at - 1] & 128:
                    break
            else:
                return found
            if len(self._held) < at + size:
                return found
            found.append((self._held[0], self._held[at : at + size]))
            self._held = self._held[at + size :]


def published(first: int, body: bytes) -> tuple[int, str, bytes]:
    """Return (message id, 0 for QoS 0; topic; payload) of a PUBLISH without properties."""
    size = int.from_bytes(body[:2], "big")
    topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
    mid = 0
    if first & 0x06:
        mid, rest = int.from_bytes(rest[:2], "big"), rest[2:]
    return mid, topic, rest[1 + rest[0] :]


class ScriptedBroker:
    """Takes everything and acknowledges only what the test says; keeps the session."""

    def __init__(self, receive_maximum: int | None = None) -> None:
        self.limit = receive_maximum
        self.packet_limit: int | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.lives: list[list[tuple[int, str, bytes]]] = []  # QoS 1 messages of each connection
        self.outstanding: set[int] = set()
        self.most = 0
        self.acks_by_itself = False
        self.grants = b"\x01"  # a reason code for each topic filter
        self.owes: bytes | None = None  # a payload that is not acknowledged the first time

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, packets = writer, Packets()
        self.outstanding.clear()
        try:
            while data := await reader.read(4096):
                for first, body in packets.feed(data):
                    self._take(first, body, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _take(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = first >> 4
        if kind == CONNECT:
            present = _SESSION_PRESENT if self.lives else 0
            self.lives.append([])
            limit = b""
            if self.limit is not None:
                limit = bytes([_RECEIVE_MAXIMUM]) + self.limit.to_bytes(2, "big")
            if self.packet_limit is not None:
                limit += bytes([_MAXIMUM_PACKET_SIZE]) + self.packet_limit.to_bytes(4, "big")
            writer.write(packet(CONNACK, bytes([present, 0, len(limit)]) + limit))
        elif kind == SUBSCRIBE:
            writer.write(packet(SUBACK, body[:2] + b"\x00" + self.grants))
        elif kind == PINGREQ:
            writer.write(packet(PINGREQ + 1, b""))
        elif kind == PUBLISH:
            mid, topic, payload = published(first, body)
            if mid:
                self.lives[-1].append((mid, topic, payload))
                self.outstanding.add(mid)
                self.most = max(self.most, len(self.outstanding))
                owed = payload == self.owes and len(self.lives) == 1
                if self.acks_by_itself and not owed:
                    self.ack(mid)

    def publish(self, topic: bytes, payload: bytes, mid: int) -> None:
        """Send a message with QoS 1, whatever its topic is."""
        assert self._writer is not None
        head = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big")
        self._writer.write(packet(PUBLISH, head + b"\x00" + payload, 0x02))

    def ack(self, mid: int) -> None:
        """Acknowledge a message, whether or not there is one."""
        assert self._writer is not None
        self.outstanding.discard(mid)
        self._writer.write(packet(PUBACK, mid.to_bytes(2, "big") + b"\x00\x00"))

    def drop(self) -> None:
        """Cut the connection."""
        assert self._writer is not None
        self._writer.transport.abort()

    def stop(self) -> None:
        self._server.close()
        if self._writer is not None:
            self._writer.close()


class CountingProxy:
    """Stands between a client and a broker and counts what is unacknowledged."""

    def __init__(self, broker_port: int, ack_after_s: float) -> None:
        """ack_after_s: how long what the broker says is held back, so that a window fills."""
        self._broker_port = broker_port
        self._ack_after_s = ack_after_s
        self.most = 0
        self.acked = 0
        self._outstanding: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._broker_port)
        up = asyncio.ensure_future(self._pass(reader, back, self._sent, 0))
        down = asyncio.ensure_future(self._pass(there, writer, self._answered, self._ack_after_s))
        self._tasks |= {up, down}
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, back):
            one.close()

    @staticmethod
    async def _pass(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look: Callable[[int, bytes], None],
        after_s: float,
    ) -> None:
        packets = Packets()
        try:
            while data := await reader.read(65536):
                for first, body in packets.feed(data):
                    look(first, body)
                await asyncio.sleep(after_s)
                writer.write(data)
        except ConnectionError:
            pass

    def _sent(self, first: int, body: bytes) -> None:
        if first >> 4 == PUBLISH and first & 0x06:
            self._outstanding.add(published(first, body)[0])
            self.most = max(self.most, len(self._outstanding))

    def _answered(self, first: int, body: bytes) -> None:
        # Counted when the broker says so, before the client hears it: never too many.
        if first >> 4 == PUBACK:
            self._outstanding.discard(int.from_bytes(body[:2], "big"))
            self.acked += 1

    def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
