"""The node's side of a session, without a radio: bytes in, frames out.

Rule: before the proof only a hello is answered; after it only sealed messages are heard. What a
peer can make the node do is bounded: one range at a time, each of a bounded length.
"""

from kerb_wire import frame, messages
from kerb_wire.errors import WireError
from kerb_wire.limits import ANSWER_MAX_RECORDS
from kerb_wire.session import NodeHandshake, open_plain, plain

_BAD_PROOF = messages.REFUSALS.index("bad_proof")
_BAD_MESSAGE = messages.REFUSALS.index("bad_message")


class Dialogue:
    """One connection; `done` when it has come to an end, `proven` once the peer proved itself."""

    def __init__(self, new_ecb, root_key, random, describe, log, acknowledge):
        """random: function from a length to bytes; describe: nonce -> HelloNode fields without
        the tag; log: a ReadingLog; acknowledge: called with (epoch, seq) of an ACK.
        """
        self._handshake = NodeHandshake(new_ecb, root_key)
        self._random = random
        self._describe = describe
        self._log = log
        self._acknowledge = acknowledge
        self._decoder = frame.Decoder()
        self._channel = None
        self.proven = False
        self.done = False

    def feed(self, data):
        """Take bytes from the peer; yield the frames (bytes) that answer them."""
        for payload in self._decoder.feed(data):
            if self.done:
                return
            try:
                for answer in self._answers(payload):
                    yield answer
            except WireError as error:
                print("session:", error)
                self.done = True
                yield frame.encode(plain(messages.encode(messages.REFUSAL, self._refusal())))

    def _refusal(self):
        return _BAD_MESSAGE if self.proven else _BAD_PROOF

    def _answers(self, payload):
        if self._channel is None:
            return self._greet(payload)
        return self._serve(payload)

    def _greet(self, payload):
        kind, row = open_plain(payload)
        if kind == messages.HELLO_GATEWAY:
            hello = self._handshake.answer(payload[1:], self._random(16), self._describe)
            yield frame.encode(plain(hello))
        elif kind == messages.PROOF:
            self._channel = self._handshake.check(row)
            self.proven = True
        else:
            self.done = True
            yield frame.encode(plain(messages.encode(messages.REFUSAL, _BAD_MESSAGE)))

    def _serve(self, payload):
        kind, row = self._channel.open(payload)
        if kind == messages.BACKFILL_REQUEST:
            for message in self._backfill(row):
                yield frame.encode(self._channel.seal(message))
        elif kind == messages.ACK:
            self._acknowledge(row.epoch, row.seq)
            yield frame.encode(
                self._channel.seal(messages.encode(messages.ACK, row.epoch, row.seq))
            )
        elif kind == messages.BYE:
            self.done = True
        else:
            self.done = True
            yield frame.encode(self._channel.seal(messages.encode(messages.REFUSAL, _BAD_MESSAGE)))

    def _backfill(self, row):
        held = []
        for record in self._log.read(row.epoch, row.first_seq, row.last_seq):
            held.append(record)
            if len(held) == ANSWER_MAX_RECORDS:
                yield messages.encode(messages.BACKFILL_ANSWER, row.epoch, b"".join(held))
                held = []
        if held:
            yield messages.encode(messages.BACKFILL_ANSWER, row.epoch, b"".join(held))
        yield messages.encode(messages.BACKFILL_END, row.epoch, row.first_seq, row.last_seq)
