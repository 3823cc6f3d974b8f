"""Fetches what is missing: which node to call on, when, and what to ask it for.

Rule: exactly the numbers of the open gaps are asked for; the node is acknowledged only after the
COMMIT; a node that does not answer is left alone for a growing time. Nothing here waits for an
advert to be heard a second time: BlueZ may keep every repetition of the same bytes to itself, so
what failed is tried again by the clock, as long as the node's door can be open.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from kerb_wire import frame, messages
from kerb_wire.errors import RemoteFault
from kerb_wire.limits import BACKFILL_MAX_RECORDS
from kerb_wire.session import Channel, GatewayHandshake, open_plain, plain
from kerb_wire.words import FLAG_CONNECTABLE, FLAG_SERVICE

from kerb_gateway.clock import Clock
from kerb_gateway.crypto import new_ecb
from kerb_gateway.errors import LinkError
from kerb_gateway.ingest import REPLAY, TAMPERED, Ingest, Outcome
from kerb_gateway.model import Heard, Node, Stream
from kerb_gateway.timekeeper import NodeClock

_ANSWER_S = 2.0
_RANGES_A_SESSION = 32
_ACK_BACKLOG = 4  # unacknowledged records that are worth a connection of their own
_GATEWAY_BOOT_BYTES = 4
_DOOR_TRIES = 3  # while one advert's door is open; then the growing pause begins
_DOOR_PAUSE_S = 0.2
_SERVICE_S = 3600.0  # how long a node that was heard in service mode is taken to be in it

Log = Callable[..., Any]


class ByteStream(Protocol):
    """A connection to one node."""

    async def send(self, frame: bytes) -> None:
        """Send a frame."""

    async def receive(self, timeout_s: float) -> bytes:
        """Return the next bytes."""


Converse = Callable[[Heard], AbstractAsyncContextManager[ByteStream]]


@dataclass
class _Attempts:
    """What is known of reaching one node, and what it said last."""

    heard: Heard
    outcome: Outcome
    failures: int = 0
    not_before: float = 0.0
    blind: bool = False  # the last failure followed an advert that nothing has proved
    proven: Outcome | None = None  # of the last advert whose MIC was right
    proven_ms: int = 0  # when that was heard


class Backfill:
    """Decides at each advert whether to connect, and runs the sessions."""

    def __init__(
        self,
        ingest: Ingest,
        clock: Clock,
        log: Log,
        *,
        first_retry_s: float,
        last_retry_s: float,
        session_timeout_s: float,
        door_s: float,
        sessions: int = 2,
        owned: Callable[[str], bool] | None = None,
        reached: Callable[[str, bool], None] | None = None,
    ) -> None:
        """door_s: how long nodes take a connection after an advert (their connect_window_ms).

        owned: whether this gateway may connect to a node now (None: always);
        reached: told how a visit ended.
        """
        self._owned = owned or (lambda node_id: True)
        self._reached = reached or (lambda node_id, well: None)
        self._ingest = ingest
        self._clock = clock
        self._log = log
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._session_timeout_s = session_timeout_s
        self._door_s = door_s
        self._slots = asyncio.Semaphore(sessions)
        self._attempts: dict[str, _Attempts] = {}
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gateway_boot = int.from_bytes(os.urandom(_GATEWAY_BOOT_BYTES), "little")
        self.acked: dict[str, int] = {}
        self.sessions = 0

    def consider(self, heard: Heard, outcome: Outcome, converse: Converse) -> bool:
        """Start a session with the node just heard if there is a reason; tell whether one was."""
        node = outcome.node
        if node is None or self._ingest.full:
            return False  # a full disk could not keep what would be fetched
        if outcome.kind in (REPLAY, TAMPERED):
            return False  # whoever sent it, it does not say that the node's door is open now
        attempts = self._attempts.setdefault(node.node_id, _Attempts(heard, outcome))
        attempts.heard, attempts.outcome = heard, outcome
        if outcome.reading is not None:
            attempts.proven, attempts.proven_ms = outcome, heard.boottime_ms
        if attempts.blind and outcome.reading is not None:
            # What a forger made us fail at says nothing of the node itself.
            attempts.failures, attempts.not_before, attempts.blind = 0, 0.0, False
        if node.node_id in self._busy or not self._has_work(node, outcome):
            return False
        if not self._owned(node.node_id):
            return False  # the gateway that owns it connects; what is missing here stays a gap
        if asyncio.get_running_loop().time() < attempts.not_before:
            return False
        self._busy.add(node.node_id)
        task = asyncio.ensure_future(self._visit(node, converse, attempts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _has_work(self, node: Node, outcome: Outcome) -> bool:
        if node.node_id in self._ingest.suspect:
            return True  # its epoch is unknown, so its flags cannot be read either: just try
        reading, stream = outcome.reading, outcome.stream
        if reading is None or stream is None or not reading.flags & FLAG_CONNECTABLE:
            return False
        if stream.gaps or stream.held or self._ingest.ended(stream):
            return True
        unacked = stream.last_seq - self.acked.get(node.node_id, 0)
        return unacked >= (1 if reading.flags & FLAG_SERVICE else _ACK_BACKLOG)

    async def _visit(self, node: Node, converse: Converse, attempts: _Attempts) -> None:
        """Try until there is nothing to do or the node can no longer be there."""
        try:
            while self._has_work(node, attempts.outcome) and self._owned(node.node_id):
                heard = attempts.heard
                if await self._through_the_door(node, converse, attempts):
                    if attempts.heard is heard:
                        return
                    continue  # it has said more in the meantime
                if not self._in_service(attempts):
                    return
                await asyncio.sleep(attempts.not_before - asyncio.get_running_loop().time())
        finally:
            self._busy.discard(node.node_id)

    def _in_service(self, attempts: _Attempts) -> bool:
        """Tell whether the node still comes back with the same bytes, as it does in service.

        By what it proved: it says that only once, whatever others say in its name meanwhile.
        """
        proven = attempts.proven
        if proven is None or proven.reading is None or not proven.reading.flags & FLAG_SERVICE:
            return False
        return self._clock.boottime_ms() - attempts.proven_ms < 1000 * _SERVICE_S

    def _since_s(self, attempts: _Attempts) -> float:
        return (self._clock.boottime_ms() - attempts.heard.boottime_ms) / 1000

    async def _through_the_door(self, node: Node, converse: Converse, attempts: _Attempts) -> bool:
        """Some tries while the door that the last advert opened stays open.

        Waiting for a free slot may take longer than that: then the node has gone, and its next
        advert tries again without a pause.
        """
        why = ""
        for number in range(_DOOR_TRIES):
            if number:
                await asyncio.sleep(_DOOR_PAUSE_S)
            async with self._slots:
                if number and self._since_s(attempts) > self._door_s:
                    break
                if not self._owned(node.node_id) or (not number and self._missed(attempts)):
                    return False  # it has waited for a slot, or paused
                try:
                    await self._attempt(node, converse, attempts.heard)
                except (LinkError, RemoteFault, TimeoutError) as error:
                    why = str(error) or "too slow"
                    continue
            attempts.failures = 0
            attempts.not_before = 0.0
            self.sessions += 1
            self._reached(node.node_id, True)
            return True
        self._failed(node, attempts, why)
        return False

    def _missed(self, attempts: _Attempts) -> bool:
        """Tell whether the door has closed before a slot was free."""
        return self._since_s(attempts) > self._door_s and not self._in_service(attempts)

    async def _attempt(self, node: Node, converse: Converse, heard: Heard) -> None:
        async with asyncio.timeout(self._session_timeout_s), converse(heard) as stream:
            await self._session(node, stream)

    def _failed(self, node: Node, attempts: _Attempts, why: str) -> None:
        attempts.failures += 1
        attempts.blind = attempts.outcome.reading is None
        self._reached(node.node_id, False)
        # Adverts of a held stream may be recordings: they must not keep us from the node for long.
        stream = attempts.outcome.stream
        held = stream is not None and stream.held
        pause_s = min(
            self._first_retry_s if held else self._last_retry_s,
            self._first_retry_s * 2 ** min(attempts.failures - 1, 20),
        )
        attempts.not_before = asyncio.get_running_loop().time() + pause_s
        self._log(
            "session failed",
            node=node.node_id,
            why=why,
            failures=attempts.failures,
            retry_s=round(pause_s, 1),
        )

    async def _session(self, node: Node, stream: ByteStream) -> None:
        talk = _Talk(stream)
        handshake = GatewayHandshake(
            new_ecb,
            node.root_key,
            os.urandom(16),
            self._gateway_boot,
            self._clock.boottime_ms() // 1000,
        )
        asked_ms = self._clock.boottime_ms()
        await talk.send(plain(handshake.hello()))
        payload = await talk.receive()
        answered_ms = self._clock.boottime_ms()
        kind, _ = open_plain(payload)
        if kind == messages.REFUSAL:
            raise LinkError("the node refused the session")
        hello, proof, channel = handshake.finish(payload[1:])
        if hello.node_id.hex() != node.node_id:
            raise LinkError(f"{hello.node_id.hex()} answered for {node.node_id}")
        await talk.send(plain(proof))
        readings = await self._ingest.epoch(node, hello.epoch, hello.last_seq)
        clock = NodeClock(hello.boot_no, hello.uptime_s, hello.last_seq)
        self._ingest.time.contact(readings, clock, asked_ms, answered_ms)
        fetched = 0
        for ended in self._ingest.ended(readings):  # the node's log may still hold them
            fetched += await self._fetch(talk, channel, ended)
        fetched += await self._fetch(talk, channel, readings)
        await self._ingest.commit()
        await self._acknowledge(talk, channel, readings)
        await talk.send(channel.seal(messages.encode(messages.BYE)))
        self._log(
            "session",
            node=node.node_id,
            epoch=hello.epoch,
            last_seq=hello.last_seq,
            fetched=fetched,
            open_gaps=len(readings.gaps),
        )

    async def _fetch(self, talk: _Talk, channel: Channel, stream: Stream) -> int:
        """Ask for the open gaps, oldest first, a bounded number of ranges."""
        fetched = 0
        for _ in range(_RANGES_A_SESSION):
            if not stream.gaps:
                break
            gap = min(stream.gaps, key=lambda one: one.first_seq)
            last_seq = min(gap.last_seq, gap.first_seq + BACKFILL_MAX_RECORDS - 1)
            request = (messages.BACKFILL_REQUEST, stream.epoch, gap.first_seq, last_seq)
            await talk.send(channel.seal(messages.encode(*request)))
            before = gap.first_seq
            fetched += await self._answers(talk, channel, stream)
            if stream.in_gap(before):
                raise LinkError(f"the node gave no answer for number {before}")
        return fetched

    async def _answers(self, talk: _Talk, channel: Channel, stream: Stream) -> int:
        fetched = 0
        while True:
            kind, row = channel.open(await talk.receive())
            if kind == messages.BACKFILL_END:
                return fetched
            if kind != messages.BACKFILL_ANSWER or row.epoch != stream.epoch:
                raise LinkError(f"message kind {kind} instead of records")
            for record in messages.split_records(row):
                self._ingest.record(stream, record, via="backfill", auth="session")
                fetched += 1

    async def _acknowledge(self, talk: _Talk, channel: Channel, stream: Stream) -> None:
        """Say what is committed; the node's echo proves that it knows."""
        seq = stream.accounted_seq()
        await talk.send(channel.seal(messages.encode(messages.ACK, stream.epoch, seq)))
        kind, row = channel.open(await talk.receive())
        if kind != messages.ACK or row.seq != seq:
            raise LinkError("the node did not confirm the acknowledgement")
        self.acked[stream.node.node_id] = seq

    async def close(self) -> None:
        """End the running sessions; what they fetched and did not commit is fetched again."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Talk:
    """Frames over a byte stream."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._decoder = frame.Decoder()
        self._payloads: list[bytes] = []

    async def send(self, payload: bytes) -> None:
        await self._stream.send(frame.encode(payload))

    async def receive(self) -> bytes:
        """Return the next payload; LinkError when none comes in time."""
        while not self._payloads:
            self._payloads.extend(self._decoder.feed(await self._stream.receive(_ANSWER_S)))
        return self._payloads.pop(0)
