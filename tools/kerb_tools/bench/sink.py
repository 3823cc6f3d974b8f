"""The far end of `kerb bench gateway`: a subscriber upstream that notes what came, and when.

Rule: while the run lasts it only keeps bytes and counts a mark in them; what they say is read
afterwards.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from typing import cast

_CONNECT = b"\x10\x14\x00\x04MQTT\x04\x02\x00\xff\x00\x08kerbsink"
_SETTLE_S = 0.2  # CONNACK and SUBACK are there by then


class Sink(asyncio.Protocol):
    """Counts `mark` in everything that the broker sends; `enough` is set at `wanted` of them."""

    def __init__(self, mark: bytes, wanted: int) -> None:
        self._mark = mark
        self._wanted = wanted
        self._tail = b""
        self._chunks: list[tuple[int, bytes]] = []
        self.keep = True  # what came; False: count only
        self.count = 0
        self.enough = asyncio.Event()
        self.moved = asyncio.Event()

    @classmethod
    async def subscribe(cls, port: int, topic: str, mark: bytes, wanted: int) -> Sink:
        """Connect, subscribe with QoS 0 and listen from then on."""
        loop = asyncio.get_running_loop()
        _, sink = await loop.create_connection(lambda: cls(mark, wanted), "127.0.0.1", port)
        name = topic.encode()
        body = b"\x00\x01" + struct.pack(">H", len(name)) + name + b"\x00"
        sink.transport.write(_CONNECT + b"\x82" + bytes([len(body)]) + body)
        await sink.moved.wait()
        await asyncio.sleep(_SETTLE_S)
        sink._chunks.clear()
        return sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        if self.keep:
            self._chunks.append((time.monotonic_ns(), data))
        self.count += (self._tail + data).count(self._mark)
        self._tail = data[1 - len(self._mark) :]
        self.moved.set()
        if self.count >= self._wanted:
            self.enough.set()

    @property
    def last_ns(self) -> int:
        """When the last bytes came."""
        return self._chunks[-1][0]

    def arrivals(self, pattern: re.Pattern[bytes]) -> dict[tuple[bytes, ...], int]:
        """Return, for each different match (its groups), when it first had come whole."""
        whole = b"".join(data for _, data in self._chunks)
        ends, at = [], 0
        for when_ns, data in self._chunks:
            at += len(data)
            ends.append((at, when_ns))
        found: dict[tuple[bytes, ...], int] = {}
        chunk = 0
        for match in pattern.finditer(whole):
            while ends[chunk][0] < match.end():
                chunk += 1
            found.setdefault(match.groups(), ends[chunk][1])
        return found
