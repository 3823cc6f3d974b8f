"""Publishes kept outbox rows once more, when the platform or a person asks for them.

Rule: rows go out in their order, one message at a time and at a bounded rate, beside the live flow
and without touching its mark; each says `replayed`. A request ends in one result, also when the
gateway dies on the way: then some rows are sent twice, and none is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from kerb_gateway.commandmessage import Message
from kerb_gateway.errors import StoreFull
from kerb_gateway.model import Payloads
from kerb_gateway.publisher import Batch, Broker, Publisher, join
from kerb_gateway.service import protocol
from kerb_gateway.service.protocol import BadRequest, GatewayCommand
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.outbox import Outgoing
from kerb_gateway.store.replays import Replay, Replays
from kerb_gateway.uplink.refusals import AGAIN, FAILURES, HOLD, Patience, verdict
from kerb_gateway.uplink.sizes import TOO_LARGE, batch_bytes, packet_bytes

_BUNCH = 256  # numbers looked at in one go
_WRITE_ROWS = 1000  # after so many the progress is stored
_QUEUE = 64
_WAIT_S = 0.05
_ANSWER_S = 60.0  # without a PUBACK for so long a message is sent again
_IDLE_S = 60.0

Log = Callable[..., Any]


class Rows(Protocol):
    """What of the outbox is needed here."""

    async def kept(self, first_no: int, last_no: int) -> list[Outgoing]:
        """Return the kept messages of a range, in their order."""


class Replayer:
    """Takes requests that come over MQTT and works on all that are open, oldest first."""

    def __init__(
        self,
        replays: Replays,
        ledger: Ledger,
        payloads: Payloads,
        commit: Callable[[], Awaitable[None]],
        publisher: Publisher,
        broker: Broker,
        batch: Batch,
        log: Log,
        *,
        rows_s: float,
        patience: Patience | None = None,
    ) -> None:
        """rows_s: the highest rate."""
        self._replays = replays
        self._ledger = ledger
        self._rows: Rows = ledger.outbox
        self._payloads = payloads
        self._commit = commit
        self._publisher = publisher
        self._broker = broker
        self._batch = batch
        self._log = log
        self._rows_s = rows_s
        self._patience = patience or Patience()
        self._queue: asyncio.Queue[tuple[Message, Callable[[Any], None]]] = asyncio.Queue(_QUEUE)

    # --- requests over MQTT ---

    def take(self, message: Message, ack: Callable[[Any], None]) -> None:
        """Queue a message; when the queue is full the broker keeps it for us."""
        try:
            self._queue.put_nowait((message, ack))
        except asyncio.QueueFull:
            self._ledger.count("command left with the broker")

    async def accept_for_ever(self) -> None:
        """Store what comes, then acknowledge it."""
        while True:
            message, ack = await self._queue.get()
            await self._accept(message)
            ack(message)

    async def _accept(self, message: Message) -> None:
        command_id = protocol.command_id_of(message.payload)
        if command_id is not None and await self._replays.known(command_id) is not None:
            self._ledger.count("command repeated")
            return
        why: str | None
        try:
            if message.retained:
                raise BadRequest("retained: a command must not be repeated by the broker")
            command: GatewayCommand = protocol.decode(message.payload, GatewayCommand)
            first_no, last_no = command.replay.first, command.replay.last
            why = await self._replays.why_not(first_no, last_no)
            if why is None:
                await self._replays.accept(command.command_id, first_no, last_no)
        except BadRequest as error:
            why = str(error)
        if why is not None:
            self._ledger.count("command malformed")
            self._log("command refused", node="gateway", command_id=command_id, why=why)
            await self._replays.refuse(command_id, why)
        await self._commit()
        self._replays.stored.set()

    # --- the work ---

    async def run(self) -> None:
        """Work on what is open, for ever."""
        while True:
            self._replays.stored.clear()
            replay = await self._replays.oldest_open()
            if replay is not None:
                await self._do(replay)
                continue
            try:
                async with asyncio.timeout(_IDLE_S):
                    await self._replays.stored.wait()
            except TimeoutError:
                pass

    async def _do(self, replay: Replay) -> None:
        self._log("replay", command_id=replay.command_id, next_no=replay.next_no,
                  until_no=replay.until_no)  # fmt: skip
        written = replay.next_no
        while replay.next_no <= replay.until_no:
            kept_no = await self._replays.next_kept(replay)
            replay.miss(replay.next_no, kept_no - 1)
            replay.next_no = kept_no
            await self._bunch(replay, min(replay.until_no, kept_no + _BUNCH - 1))
            if replay.next_no - written >= _WRITE_ROWS:
                written = replay.next_no
                try:
                    await self._replays.write(replay)
                except StoreFull:
                    pass  # after a crash some more rows go out twice; ingest says the rest
        self._replays.end(replay)
        await self._commit()
        self._log("replay ended", command_id=replay.command_id, published=replay.published,
                  not_kept=replay.not_kept)  # fmt: skip

    async def _bunch(self, replay: Replay, last_no: int) -> None:
        """Publish what is kept of next_no..last_no; what it skips is counted."""
        first_no = replay.next_no
        letters = await self._replays.letters(first_no, last_no)
        rows = await self._rows.kept(first_no, last_no)
        kept = {row.outbox_no for row in rows}
        for number in range(first_no, last_no + 1):
            if number not in kept and number not in letters:
                replay.miss(number, number)
        replay.letters += len(letters)
        rows = [row for row in rows if row.outbox_no not in letters]
        for message in self._messages([self._marked(row) for row in rows]):
            await self._publish(replay, message)
        replay.next_no = last_no + 1

    def _marked(self, row: Outgoing) -> Outgoing:
        return msgspec.structs.replace(row, payload=self._payloads.replayed(row.payload))

    def _messages(self, rows: list[Outgoing]) -> list[list[Outgoing]]:
        """Put readings that follow each other into one message; the order stays."""
        messages: list[list[Outgoing]] = []
        left_bytes = 0
        for row in rows:
            last = messages[-1] if messages else []
            joins = row.reading is not None and last and last[0].reading is not None
            left_bytes -= len(row.payload) + 1
            if joins and len(last) < self._batch.rows and left_bytes >= 0:
                last.append(row)
            else:
                messages.append([row])
                left_bytes = batch_bytes(self._broker.maximum_packet_bytes) - len(row.payload)
        return messages

    async def _publish(self, replay: Replay, rows: list[Outgoing]) -> None:
        """Send rows until the broker has taken or refused them for good."""
        topic, payload = rows[0].topic, rows[0].payload
        if len(rows) > 1:
            topic, payload = self._batch.topic, join([row.payload for row in rows])
        tries = refusals = 0
        while (reason := await self._answer(topic, payload)) >= FAILURES:
            tries += verdict(reason) == AGAIN
            if verdict(reason) not in (AGAIN, HOLD) or tries >= self._patience.tries:
                break
            refusals += 1
            await asyncio.sleep(self._patience.pause_s(refusals))
        if reason < FAILURES:
            replay.published += len(rows)
        elif len(rows) > 1:
            for row in rows:
                await self._publish(replay, [row])
        else:
            replay.refused += 1
            self._log("message refused", outbox_no=rows[0].outbox_no, topic=topic,
                      reason=f"0x{reason:02x}", replayed=True)  # fmt: skip
        await asyncio.sleep(len(rows) / self._rows_s)

    async def _answer(self, topic: str, payload: bytes) -> int:
        """Send one message beside the live flow; returns its PUBACK's reason code, or our own."""
        while True:
            await self._broker.connected.wait()
            if packet_bytes(topic, payload) > self._broker.maximum_packet_bytes:
                return TOO_LARGE
            self._publisher.lent = 1
            try:
                if self._publisher.has_no_room:
                    await asyncio.sleep(_WAIT_S)
                    continue
                async with asyncio.timeout(_ANSWER_S):
                    return await self._sent(topic, payload)
            except TimeoutError:
                continue
            finally:
                self._publisher.lent = 0

    async def _sent(self, topic: str, payload: bytes) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        live = self._broker.on_acked
        out = self._broker.publish(topic, payload)

        def acked(mid: int, reason: int) -> None:
            if mid != out:
                live(mid, reason)
            elif not answer.done():
                answer.set_result(reason)

        self._broker.on_acked = acked  # before this turn of the loop ends, so before any answer
        try:
            return await answer
        finally:
            self._broker.on_acked = live
