"""After a reconnection nothing new may overtake what is sent again; what a SUBACK says is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from kerb_gateway.uplink.mqtt import Uplink
from mqtt_parts import ScriptedBroker
from parts import TOPICS, log
from test_traps_paho import uplink_to

_CONNECT, _PUBLISH, _SUBSCRIBE = 1, 3, 8
_CONNACK = b"\x20\x03\x00\x00\x00"
_WAIT_S = 10.0


class SlowBroker:
    """Speaks as much of MQTT 5 as it takes to withhold a SUBACK and never to acknowledge."""

    def __init__(self) -> None:
        self.connections = 0
        self.suback = asyncio.Event()
        self.topics: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None
        self._answers: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writer = writer
        try:
            while True:
                kind, body = await self._packet(reader)
                if kind == _CONNECT:
                    writer.write(_CONNACK)
                elif kind == _SUBSCRIBE:
                    self._answers.append(asyncio.ensure_future(self._answer(writer, body[:2])))
                elif kind == _PUBLISH:
                    self.topics.append(body[2 : 2 + int.from_bytes(body[:2], "big")])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, mid: bytes) -> None:
        await self.suback.wait()
        writer.write(b"\x90\x04" + mid + b"\x00\x01")

    @staticmethod
    async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readexactly(1))[0]
        size = shift = 0
        while True:
            octet = (await reader.readexactly(1))[0]
            size |= (octet & 0x7F) << shift
            shift += 7
            if not octet & 0x80:
                return head >> 4, await reader.readexactly(size)

    def drop(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()

    def stop(self) -> None:
        self._server.close()


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WAIT_S):
        while not ready():
            await asyncio.sleep(0.01)


def test_what_was_on_its_way_is_sent_again_before_anything_new() -> None:
    async def story() -> None:
        broker = SlowBroker()
        uplink = Uplink(
            host="127.0.0.1",
            port=await broker.start(),
            client_id="test",
            username=None,
            password=None,
            availability=TOPICS.availability,
            commands=TOPICS.commands,
            keepalive_s=60,
            protocol="5",
            log=log,
        )
        broker.suback.set()
        uplink.start()
        await asyncio.wait_for(uplink.connected.wait(), _WAIT_S)
        uplink.publish("older", b"1")
        await until(lambda: b"older" in broker.topics)
        broker.suback.clear()
        broker.drop()
        await until(lambda: not uplink.connected.is_set())
        await until(lambda: broker.topics.count(b"older") == 2)
        assert not uplink.connected.is_set()  # paho may still be at it
        broker.suback.set()
        await asyncio.wait_for(uplink.connected.wait(), _WAIT_S)
        uplink.publish("newer", b"2")
        await until(lambda: b"newer" in broker.topics)
        assert broker.connections == 2
        await uplink.stop(0)
        broker.stop()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("grants", "refused"),
    [
        (b"\x01\x01", {}),
        (b"\x87\x01", {TOPICS.commands: "0x87"}),
        (b"\x80\x9e", {TOPICS.commands: "0x80", "others": "0x9e"}),
        (b"\x87", {TOPICS.commands: "0x87"}),
    ],
)
def test_a_refused_subscription_is_said_and_rows_go_on(
    grants: bytes, refused: dict[str, str]
) -> None:
    """The broker forbids commands: a person must know, and the readings must not wait."""
    said: dict[str, str] = {}

    def hear(event: str, **fields: Any) -> None:
        if event == "subscription refused":
            said[fields["topic"]] = fields["reason"]

    async def story() -> None:
        broker = ScriptedBroker()
        broker.acks_by_itself, broker.grants = True, grants
        uplink = uplink_to(await broker.start(), log=hear)
        uplink.watched = [("others", 1)]
        acked: list[int] = []
        uplink.on_acked = lambda mid, reason: acked.append(mid)
        uplink.start()
        await asyncio.wait_for(uplink.connected.wait(), _WAIT_S)
        mid = uplink.publish("row", b"1")
        await until(lambda: acked)
        assert acked == [mid]
        await uplink.stop(0)
        broker.stop()

    asyncio.run(story())
    assert said == refused
