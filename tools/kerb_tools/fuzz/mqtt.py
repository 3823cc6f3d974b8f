"""Targets: what the broker sends, as messages to the command desk and as bytes to the client.

Rule: every command message is acknowledged once and has one result at most, on a topic that may be
published; and nothing that a broker sends ends the client.

"inbox": pieces are messages; bit 0 of the first byte says retained, the rest chooses the topic.
"broker": the input is the byte stream of a broker behind the CONNECT, through the real paho.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from typing import Any

from kerb_gateway.commands import Commands
from kerb_gateway.errors import LinkError
from kerb_gateway.model import Node
from kerb_gateway.uplink.mqtt import Incoming, Uplink

from kerb_tools.fuzz import warp
from kerb_tools.fuzz.both.wire_targets import pieces
from kerb_tools.fuzz.gateway_bench import BUS, LAMP_ID, NODE_ID, NODES, TOPICS, Bench, Benches, log
from kerb_tools.fuzz.target import Broken, Run, Target
from kerb_tools.fuzz.wire_seeds import as_pieces

_STORY_S = 3.0
_TOPIC_MAX_BYTES = 65535  # MQTT 5, 1.5.4
_READS_MOST = 400
_TOPICS = (LAMP_ID, LAMP_ID, LAMP_ID, NODE_ID, "", "+", "a#", "\0", "x" * 65520, "b4cf12000009")
_WAIT_S = 0.05


class _Dead:
    """A bus without a lamp."""

    async def exchange(self, node: Node, command: dict[str, int]) -> dict[str, int]:
        """Fail."""
        raise LinkError("nobody there")


async def _desk(bench: Bench, messages: list[Incoming]) -> Counter[int]:
    """Hand the messages in and let the desk work; returns how often each was acknowledged."""
    acked: Counter[int] = Counter()
    commands = Commands(
        bench.store, bench.ledger, bench.ingest, bench.clock, TOPICS, NODES, {BUS: _Dead()}, log,
        retry_s=0.5,
    )  # fmt: skip
    await commands.resume()
    for message in messages:
        commands.take(message, lambda one: acked.update([one.mid]))
    running = asyncio.ensure_future(commands.run())
    await asyncio.wait([running], timeout=_STORY_S)
    if running.done():
        running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return acked


async def _results(bench: Bench) -> None:
    """Broken when a command has two results, or a message cannot be published."""
    results: Counter[str] = Counter()
    rows = await bench.store.query("select topic, payload from outbox where topic is not null")
    for topic, payload in rows:
        encoded = topic.encode()
        if len(encoded) > _TOPIC_MAX_BYTES or set(topic) & set("+#\0"):
            raise Broken("a topic that cannot be published")
        table = json.loads(payload)
        if topic.endswith("/result") and table["command_id"] is not None:
            results[table["command_id"]] += 1
    if any(number > 1 for number in results.values()):
        raise Broken("a command has two results")


def _inbox() -> Run:
    benches = Benches()

    async def story(data: bytes) -> None:
        bench = await benches.open()
        try:
            messages = []
            for number, piece in enumerate(pieces(data), 1):
                topic = TOPICS.of(_TOPICS[(piece[0] >> 1) % len(_TOPICS)], "cmd")
                messages.append(Incoming(topic, piece[1:], bool(piece[0] & 1), number, 1))
            acked = await _desk(bench, messages[:200])
            if acked != Counter({one.mid: 1 for one in messages[:200]}):
                raise Broken("a message was not acknowledged exactly once")
            await bench.check()
            await _results(bench)
        finally:
            await bench.close()

    return lambda data: warp.run(lambda: story(data))


def _message(first: int, **fields: Any) -> bytes:
    table = {"command_id": "a", "level_pct": 40, "hold_s": 60, "ttl_s": 1} | fields
    return bytes([first]) + json.dumps(table).encode()


def _messages() -> list[bytes]:
    return [
        as_pieces(_message(0), _message(0, command_id="b"), _message(0)),
        as_pieces(_message(1), _message(6), _message(8, command_id="c"), b"\x00{}"),
        as_pieces(*(_message(2 * index, command_id=str(index)) for index in range(len(_TOPICS)))),
        as_pieces(_message(0, level_pct=101), _message(0), b'\0{"command_id":"q","x":1}'),
    ]


# --- the client ---


class _Wire:
    """A broker's end of a connection that says what the input says."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def _refuse_more(self) -> None:
        """End a second connection: a client that is told to speak another version makes one."""
        self._listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._listener.accept()[0].close()
        self._listener.setblocking(True)

    async def serve(self, client: Any, data: bytes) -> None:
        """Connect the client, say `data`, close, and let the client work until it has gone."""
        client.connect("127.0.0.1", self.port, 60)
        peer, _ = self._listener.accept()
        with peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            for _ in range(_READS_MOST):
                if client.loop(_WAIT_S) != 0:
                    return
                self._refuse_more()
                await asyncio.sleep(0)
        raise Broken("the client does not see the connection's end")


def _broker() -> Run:
    wire = _Wire()

    async def story(data: bytes) -> None:
        uplink = Uplink(
            host="127.0.0.1", port=wire.port, client_id="fuzz", username=None, password=None,
            availability=TOPICS.availability, commands=TOPICS.commands, keepalive_s=60,
            protocol="5" if data[:1] < b"\x80" else "3.1.1", log=log,
        )  # fmt: skip
        taken: list[Incoming] = []
        uplink.on_command = taken.append
        # The client itself, without its thread: what would end the thread is raised here.
        await wire.serve(uplink._client, data[1:])
        await asyncio.sleep(0)
        for one in taken:
            TOPICS.node_of(one.topic)

    return lambda data: warp.run(lambda: story(data))


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([first]) + length + body


def _streams() -> list[bytes]:
    topic = TOPICS.of(LAMP_ID, "cmd").encode()
    named = len(topic).to_bytes(2, "big") + topic
    five = b"".join(
        (
            _packet(0x20, b"\x00\x00\x0a\x21\x00\x14\x27\x00\x00\x10\x00\x22\x00\x05"),
            _packet(0x90, b"\x00\x01\x00\x01"),
            _packet(0x40, b"\x00\x02\x10\x00"),
            _packet(0x32, named + b"\x00\x07\x00" + b'{"command_id":"a"}'),
            _packet(0x30, named + b"\x02\x01\x01" + b"x" * 200),
            _packet(0x34, named + b"\x00\x08\x00q"),
            _packet(0x62, b"\x00\x08"),
            _packet(0xD0, b""),
            _packet(0xE0, b"\x8b\x00"),
        )
    )
    three = b"".join(
        (
            _packet(0x20, b"\x00\x00"),
            _packet(0x90, b"\x00\x01\x01"),
            _packet(0x40, b"\x00\x02"),
            _packet(0x32, named + b"\x00\x07{}"),
        )
    )
    refused = _packet(0x20, b"\x00\x84\x00")
    return [b"\x00" + five, b"\x80" + three, b"\x00" + refused, b"\x80" + _packet(0x20, b"\0\x01")]


TARGETS = (
    Target("inbox", "Command messages of the broker", _inbox, _messages),
    Target(
        "broker",
        "A broker's byte stream, through paho",
        _broker,
        _streams,
        traced=("kerb_wire", "kerb_gateway", "paho.mqtt"),
    ),
)
