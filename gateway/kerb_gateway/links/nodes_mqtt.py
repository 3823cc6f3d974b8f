"""Wi-Fi nodes through the gateway's own broker: sealed bundles in, answers out.

Rule: a message is acknowledged to the broker, and its node answered, only after the COMMIT that
holds its records; what is forged, damaged or nobody's is counted and acknowledged, so that it does
not come again. A number that is known comes from a node that lost its answer: a duplicate,
answered again. Only a record that was new is contact with its node: the rest may be a recording.

docs/mqtt-topics.md has the topics, docs/wire-format.md the bundle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from kerb_wire import bundle, records
from kerb_wire.errors import MIC, RemoteFault

from kerb_gateway.crypto import Decrypt, Ecb, ccm_opener, new_ecb
from kerb_gateway.ingest import Ingest
from kerb_gateway.links.mqtt import Arrived, LocalBroker
from kerb_gateway.model import Node, Stream

_ANSWER_S = 0.5  # an answer waits so long for later ones of its node: only the last one counts
_ANSWER_AGAIN_S = 1.0  # while the broker is away
_QUIET_S = 0.05
# The in-flight window of a broker that keeps its default (mosquitto): with so many unacknowledged
# it may send no more before some are.
_LEAST_WINDOW = 20

Log = Callable[..., Any]


@dataclass(frozen=True)
class _Origin:
    """A node's epoch that has proven itself, with its keys at hand."""

    stream: Stream
    decrypt: Decrypt
    ack_ecb: Ecb


class _Opened(msgspec.Struct, frozen=True, gc=False):
    """A bundle that is its node's; origin None: the first of its epoch."""

    node: Node
    epoch: int
    decrypt: Decrypt
    origin: _Origin | None
    packed: list[bytes]


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """A message that waits for its COMMIT; origin None: it was refused."""

    durable_at: int
    message: Arrived
    origin: _Origin | None
    accounted_seq: int


class NodesMqtt:
    """Takes what the broker brings through ingest, and answers."""

    def __init__(
        self, broker: LocalBroker, nodes: list[Node], ingest: Ingest, window: int, log: Log
    ) -> None:
        self._broker = broker
        self._ingest = ingest
        self._log = log
        self._nodes = {bundle.up_topic(node.node_id): node for node in nodes}
        self._hurry_at = max(1, window // 2)
        self._origins: dict[tuple[int, int], _Origin] = {}  # by node_no and epoch
        self._waiting: deque[_Waiting] = deque()
        self._answers: dict[str, tuple[_Origin, int]] = {}
        self._answer_due: asyncio.TimerHandle | None = None
        ingest.after_commit.append(self._release)

    async def run(self) -> None:
        """Take messages for ever."""
        something = self._broker.something
        while True:
            if len(self._waiting) < min(_LEAST_WINDOW, self._hurry_at):
                await something.wait()
            else:
                try:
                    await asyncio.wait_for(something.wait(), _QUIET_S)
                except TimeoutError:
                    self._ingest.hurry()
                    await something.wait()
            something.clear()
            await self._take_all()

    async def _take_all(self) -> None:
        arrived = self._broker.arrived
        while arrived:
            message = arrived.popleft()
            opened = self._open(message)
            if opened is None:
                self._waiting.append(_Waiting(0, message, None, 0))
                continue
            origin = opened.origin or await self._begin(opened)
            self._store(origin.stream, opened.packed)
            seq = origin.stream.accounted_seq()
            self._waiting.append(_Waiting(self._ingest.durable_at, message, origin, seq))
        if len(self._waiting) >= self._hurry_at:
            self._ingest.hurry()
        self._release()

    def _open(self, message: Arrived) -> _Opened | None:
        """Return what a bundle holds; None if it is refused, and counted."""
        node = self._nodes.get(message.topic)
        if node is None:
            self._ingest.count("message of an unknown node")
            return None
        if message.retained:
            self._ingest.count("retained message refused", node.node_no)
            return None
        try:
            epoch = bundle.epoch_of(message.payload)
            origin = self._origins.get((node.node_no, epoch))
            decrypt = self._opener(node, epoch) if origin is None else origin.decrypt
            packed = bundle.open_with(decrypt, message.payload)
            return _Opened(node, epoch, decrypt, origin, packed)
        except RemoteFault as fault:
            wrong = fault.reason == MIC
            name = "message with a wrong MIC" if wrong else "malformed message"
            self._ingest.count(name, node.node_no)
            return None

    def _opener(self, node: Node, epoch: int) -> Decrypt:
        """Return what opens an epoch's bundles; kept only once one of them was right."""
        return ccm_opener(bundle.bundle_key(new_ecb, node.root_key, epoch), bundle.TAG_BYTES)

    async def _begin(self, opened: _Opened) -> _Origin:
        node, epoch = opened.node, opened.epoch
        stream = await self._ingest.epoch(node, epoch, 0, contact=False)
        ack_ecb = new_ecb(bundle.ack_key(new_ecb, node.root_key, epoch))
        origin = _Origin(stream, opened.decrypt, ack_ecb)
        self._origins[(node.node_no, epoch)] = origin
        self._log("epoch heard", node=node.node_id, epoch=epoch, last_seq=stream.last_seq)
        return origin

    def _store(self, stream: Stream, packed: list[bytes]) -> None:
        for one in packed:
            try:
                self._ingest.record(stream, one, via="mqtt", auth="mic", contact=True)
            except RemoteFault:  # of the node itself, newer than this gateway: its number is a gap
                self._ingest.count("malformed record", stream.node.node_no)
                continue
            if records.event_of(one):
                self._ingest.hurry()

    # --- after the COMMIT ---

    def _release(self) -> None:
        """Acknowledge, in order, what is durable by now, and let its nodes know."""
        done: list[Arrived] = []
        commits = self._ingest.commits
        while self._waiting and self._waiting[0].durable_at <= commits:
            one = self._waiting.popleft()
            done.append(one.message)
            if one.origin is not None:
                node_id = one.origin.stream.node.node_id
                self._answers[node_id] = (one.origin, one.accounted_seq)
        if done:
            self._broker.ack(done)
            self._answer_in(_ANSWER_S)

    def _answer_in(self, pause_s: float) -> None:
        if self._answers and self._answer_due is None:
            loop = asyncio.get_running_loop()
            self._answer_due = loop.call_later(pause_s, self._answer)

    def _answer(self) -> None:
        self._answer_due = None
        if not self._broker.connected:
            self._answer_in(_ANSWER_AGAIN_S)
            return
        self._broker.publish(
            (bundle.ack_topic(node_id), bundle.seal_ack(origin.ack_ecb, origin.stream.epoch, seq))
            for node_id, (origin, seq) in self._answers.items()
        )
        self._answers.clear()
