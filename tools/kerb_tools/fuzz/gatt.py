"""Targets: a GATT session, with a stranger and with a node that holds the key and errs.

Rule: the real Backfill runs the session; a stranger is never acknowledged, and whatever a proven
node says, each number of its streams stays accounted for.

"gatt": the pieces are what the stranger notifies. "node": the first piece fills the node's hello
(last_seq, first_seq, acked_seq), and each further one is its next answer, by its first byte modulo
6: 0 sealed as it is, 1 the last payload once more, 2 unsealed, 3 raw bytes, 4 the records that
were asked for, 5 what was sent, echoed.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from kerb_gateway.backfill import Backfill
from kerb_gateway.crypto import new_ecb
from kerb_gateway.errors import LinkError
from kerb_gateway.ingest import Outcome
from kerb_gateway.model import Heard
from kerb_wire import frame, messages, records
from kerb_wire.limits import ANSWER_MAX_RECORDS
from kerb_wire.session import Channel, NodeHandshake, open_plain, plain

from kerb_tools.fuzz import warp
from kerb_tools.fuzz.both.wire_targets import pieces
from kerb_tools.fuzz.gateway_bench import EPOCH, KEY, NODE_ID, NODES, Bench, Benches, log
from kerb_tools.fuzz.target import Broken, Run, Target
from kerb_tools.fuzz.wire_seeds import all_messages, as_pieces


class _Peer(Protocol):
    async def send(self, data: bytes) -> None:
        """Take a frame."""

    async def receive(self, timeout_s: float) -> bytes:
        """Return bytes; LinkError when there are no more."""


class Stranger:
    """Notifies what the input says, whatever is asked."""

    def __init__(self, script: list[bytes]) -> None:
        self._script = list(script)

    async def send(self, data: bytes) -> None:
        """Take a frame and ignore it."""

    async def receive(self, timeout_s: float) -> bytes:
        """Return the next piece."""
        if not self._script:
            raise LinkError("no answer")
        return self._script.pop(0)


class Node:
    """A node with the right key: its handshake is right, what it says then is the input's."""

    def __init__(self, script: list[bytes]) -> None:
        first = script[0] if script else b""
        self._last, self._first, self._acked = struct.unpack("<III", first[:12].ljust(12, b"\0"))
        self._script = list(script[1:])
        self._decoder = frame.Decoder()
        self._handshake = NodeHandshake(new_ecb, KEY)
        self._channel: Channel | None = None
        self._ready: list[bytes] = []
        self._asked: Any = None
        self._heard = b""
        self._said = b""

    async def send(self, data: bytes) -> None:
        """Take what the gateway sends; the handshake is answered as it must be."""
        for payload in self._decoder.feed(data):
            if self._channel is not None:
                kind, row = self._channel.open(payload)
                self._heard = messages.encode(kind, *row)
                self._asked = row if kind == messages.BACKFILL_REQUEST else None
                continue
            kind, row = open_plain(payload)
            if kind == messages.PROOF:
                self._channel = self._handshake.check(row)
            else:
                answer = self._handshake.answer(payload[1:], bytes(16), self._fields)
                self._ready.append(frame.encode(plain(answer)))

    def _fields(self, nonce: bytes) -> tuple[Any, ...]:
        node_id = bytes.fromhex(NODE_ID)
        return (1, 0, node_id, EPOCH, nonce, 1, 60, self._first, self._last, self._acked)

    async def receive(self, timeout_s: float) -> bytes:
        """Return what the node says next."""
        if not self._ready:
            if not self._script or self._channel is None:
                raise LinkError("no answer")
            piece = self._script.pop(0)
            self._ready += self._answers(self._channel, piece[0] % 6, piece[1:])
        return self._ready.pop(0)

    def _answers(self, channel: Channel, mode: int, body: bytes) -> list[bytes]:
        if mode == 0:
            self._said = channel.seal(body)
        elif mode == 2:
            self._said = plain(body)
        elif mode == 3:
            return [body or b"\0"]
        elif mode == 4:
            return [frame.encode(channel.seal(one)) for one in self._honest()]
        elif mode == 5:
            self._said = channel.seal(self._heard)
        return [frame.encode(self._said or b"\0")]

    def _honest(self) -> list[bytes]:
        if self._asked is None:
            return [messages.encode(messages.BYE)]
        epoch, first, last = self._asked
        step = ANSWER_MAX_RECORDS
        answers = []
        for at in range(first, last + 1, step):
            rows = [_record(seq) for seq in range(at, min(last + 1, at + step))]
            answers.append(messages.encode(messages.BACKFILL_ANSWER, epoch, b"".join(rows)))
        return [*answers, messages.encode(messages.BACKFILL_END, epoch, first, last)]


def _record(seq: int) -> bytes:
    return records.pack_fill(1, seq, seq & 0xFFFFFF, 1000, 2, 0, 200, 90, 0, 7, 7, 1, 0)


async def _visit(bench: Bench, peer: _Peer) -> Backfill:
    """Let the gateway call on the peer, once."""
    backfill = Backfill(
        bench.ingest,
        bench.clock,
        log,
        first_retry_s=60,
        last_retry_s=60,
        session_timeout_s=10,
        door_s=0.1,
    )

    @contextlib.asynccontextmanager
    async def converse(_: Heard) -> AsyncIterator[_Peer]:
        yield peer

    bench.ingest.suspect.add(NODE_ID)
    heard = Heard("", b"", -60, "hci0", bench.clock.boottime_ms())
    if not backfill.consider(heard, Outcome("no epoch", NODES[0]), converse):
        raise Broken("the node was not called on")
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.gather(*tasks)
    return backfill


def _making(peer_of: Callable[[list[bytes]], _Peer], *, proven: bool) -> Callable[[], Run]:
    def make() -> Run:
        benches = Benches()

        async def story(data: bytes) -> None:
            bench = await benches.open()
            try:
                backfill = await _visit(bench, peer_of(list(pieces(data))))
                acked = backfill.acked.get(NODE_ID, 0)
                stream = bench.ledger.newest_stream(NODE_ID)
                if not proven and (backfill.acked or stream is not None):
                    raise Broken("a stranger was believed")
                if acked > (stream.accounted_seq() if stream is not None else 0):
                    raise Broken("more was acknowledged than is stored")
                await bench.check()
            finally:
                await bench.close()

        return lambda data: warp.run(lambda: story(data))

    return make


def _strangers() -> list[bytes]:
    hello = messages.encode(
        messages.HELLO_NODE,
        1,
        0,
        bytes.fromhex(NODE_ID),
        EPOCH,
        bytes(16),
        1,
        60,
        1,
        9,
        0,
        bytes(8),
    )
    refusal = messages.encode(messages.REFUSAL, 1)
    return [
        as_pieces(frame.encode(plain(hello))),
        as_pieces(frame.encode(plain(hello))[:20], frame.encode(plain(hello))[20:]),
        as_pieces(frame.encode(plain(refusal))),
        as_pieces(b"\0", bytes(range(200)), frame.encode(b"\x01" + bytes(30))),
    ]


def _nodes() -> list[bytes]:
    hello = struct.pack("<III", 5, 1, 0)
    honest, echo = b"\x04", b"\x05"
    lost = b"\0" + messages.encode(
        messages.BACKFILL_ANSWER, EPOCH, records.pack_lost(1, 3, 0) + records.pack_lost(9, 12, 1)
    )
    mixed = b"\0" + messages.encode(
        messages.BACKFILL_ANSWER, EPOCH, b"".join(_record(seq) for seq in (4, 5, 6, 2))
    )
    end = b"\0" + messages.encode(messages.BACKFILL_END, EPOCH, 1, 5)
    every = [b"\0" + one for one in all_messages()]
    return [
        as_pieces(hello, honest, echo),
        as_pieces(struct.pack("<III", 200, 1, 0), honest, honest, honest, honest, echo),
        as_pieces(hello, lost, mixed, end, echo),
        as_pieces(hello, mixed, b"\x01", lost, b"\x02ab", end),
        as_pieces(struct.pack("<III", 0xFFFFFFFF, 1, 0), honest, lost, end, echo),
        *(as_pieces(hello, one, end, echo) for one in every),
    ]


TARGETS = (
    Target(
        "gatt",
        "A stranger's notifications, as a session",
        _making(Stranger, proven=False),
        _strangers,
    ),
    Target("node", "A proven node's answers in a session", _making(Node, proven=True), _nodes),
)
