"""A bin's side of a session, in the words of kerb_wire.

Rule: before the proof only a hello is answered, after it only sealed messages; a visit ends in
time. A careless node says some records again that it was not asked for; one that is tilted during
the visit says what it has measured in the meantime.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any

from kerb_gateway.crypto import new_ecb
from kerb_wire import frame, messages
from kerb_wire.errors import WireError
from kerb_wire.limits import ANSWER_MAX_RECORDS
from kerb_wire.session import Channel, NodeHandshake, open_plain, plain

if TYPE_CHECKING:
    from kerb_tools.simulate.bin import Bin
    from kerb_tools.simulate.house import House

_BAD_MESSAGE = messages.REFUSALS.index("bad_message")


class Dialogue:
    """One connection to one bin."""

    def __init__(
        self, node: Bin, house: House, random: Random, *, repeats: bool = False, tilts: int = 0
    ) -> None:
        """house: who has connected; tilts: how often the bin is moved meanwhile."""
        self._node = node
        self._house = house
        self._random = random
        self._repeats = repeats
        self._tilts = tilts
        self._handshake = NodeHandshake(new_ecb, node.root_key)
        self._decoder = frame.Decoder()
        self._channel: Channel | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the frames that answer them."""
        answers: list[bytes] = []
        for payload in self._decoder.feed(data):
            try:
                answers += [frame.encode(answer) for answer in self._answers(payload)]
            except WireError:
                refusal = messages.encode(messages.REFUSAL, _BAD_MESSAGE)
                answers.append(frame.encode(plain(refusal)))
        return answers

    def _answers(self, payload: bytes) -> Iterator[bytes]:
        if self._channel is None:
            yield from self._greet(payload)
            return
        kind, row = self._channel.open(payload)
        if kind == messages.BACKFILL_REQUEST:
            for message in self._backfill(row):
                yield self._channel.seal(message)
        elif kind == messages.ACK:
            self._node.acknowledge(self._house, row.epoch, row.seq)
            yield self._channel.seal(messages.encode(messages.ACK, row.epoch, row.seq))

    def _greet(self, payload: bytes) -> Iterator[bytes]:
        kind, row = open_plain(payload)
        if kind == messages.PROOF:
            self._channel = self._handshake.check(row)
            return
        self._house.street.tailbook.answer(self._house, self._node.node_id, self._node.log)
        nonce = self._random.randbytes(16)
        yield plain(self._handshake.answer(payload[1:], nonce, self._node.hello))

    def _backfill(self, row: Any) -> Iterator[bytes]:
        found = list(self._node.log.read(row.epoch, row.first_seq, row.last_seq))
        now = row.epoch == self._node.log.epoch
        if self._repeats and now:
            self._repeats = False
            again = [self._node.log.some(self._random.random()) for _ in range(3)]
            found += [record for record in again if record is not None]
        if self._tilts and now:
            # Only the last one: what came before it is a gap that the gateway asks for next.
            found.append([self._node.tilt() for _ in range(self._tilts)][-1])
            self._tilts = 0
        for at in range(0, len(found), ANSWER_MAX_RECORDS):
            part = b"".join(found[at : at + ANSWER_MAX_RECORDS])
            yield messages.encode(messages.BACKFILL_ANSWER, row.epoch, part)
        yield messages.encode(messages.BACKFILL_END, row.epoch, row.first_seq, row.last_seq)
