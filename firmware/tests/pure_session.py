"""The node's half of a session and the visit around it: run under both interpreters by run.py.

The gateway's half is kerb_wire's own; radio and clock are plain objects that are handed in.
"""

from aes import new_ecb
from kerb_node import visit
from kerb_node.dialogue import Dialogue
from kerb_wire import frame, messages, records, session
from kerb_wire.limits import AUTH_TIMEOUT_MS, GREETING_TIMEOUT_MS, SESSION_TIMEOUT_MS
from kerb_wire.messages import ACK, BACKFILL_ANSWER, BACKFILL_END, BACKFILL_REQUEST, BYE, REFUSAL

KEY = bytes(range(16))
EPOCH = 77
NODE = b"\xa4\xcf\x12\x00\x00\x10"


class Log:
    """Holds every number but 3 and 4."""

    def read(self, epoch, first_seq, last_seq):
        for seq in range(first_seq, last_seq + 1):
            if seq == 3:
                yield records.pack_lost(3, 4, 1)
            elif seq != 4:
                yield records.pack_fill(1, seq, seq, 1000, 2, 0, 200, 90, 0, 7, 7, 1, 0)


class Ends:
    """A dialogue and the gateway that speaks to it."""

    def __init__(self, root_key=KEY):
        self.acked = []
        self.node = Dialogue(
            new_ecb,
            KEY,
            lambda size: bytes(range(100, 100 + size)),
            lambda nonce: (1, 0, NODE, EPOCH, nonce, 1, 60, 1, 20, 0),
            Log(),
            lambda epoch, seq: self.acked.append((epoch, seq)),
        )
        self.gateway = session.GatewayHandshake(new_ecb, root_key, bytes(16), 5, 1000)
        self.channel = None

    def tell(self, payload):
        """Give the node one frame; return the payloads that it answers."""
        decoder = frame.Decoder()
        answers = []
        for answer in self.node.feed(frame.encode(payload)):
            answers += decoder.feed(answer)
        return answers

    def greet(self):
        (answer,) = self.tell(session.plain(self.gateway.hello()))
        row, proof, self.channel = self.gateway.finish(answer[1:])
        assert row.node_id == NODE and row.epoch == EPOCH and row.last_seq == 20
        assert self.tell(session.plain(proof)) == []
        return self

    def ask(self, kind, *values):
        answers = self.tell(self.channel.seal(messages.encode(kind, *values)))
        return [self.channel.open(answer) for answer in answers]


def refusals(answers):
    return [row.code for kind, row in map(session.open_plain, answers) if kind == REFUSAL]


def test_a_session_from_hello_to_bye():
    ends = Ends().greet()
    assert ends.node.proven and not ends.node.done
    answers = ends.ask(BACKFILL_REQUEST, EPOCH, 1, 20)
    assert [kind for kind, _ in answers] == [BACKFILL_ANSWER] * 4 + [BACKFILL_END]
    rows = []
    for _, answer in answers[:-1]:
        rows += [records.unpack(one) for one in messages.split_records(answer)]
    assert [row.seq for row in rows] == [1, 2, 3] + list(range(5, 21))
    assert rows[2].kind == records.LOST and rows[2].last_seq == 4
    ((kind, row),) = ends.ask(ACK, EPOCH, 20)
    assert kind == ACK and row.seq == 20 and ends.acked == [(EPOCH, 20)]
    assert ends.ask(BYE) == [] and ends.node.done


def test_a_stranger_gets_nothing():
    ends = Ends()
    request = messages.encode(BACKFILL_REQUEST, EPOCH, 1, 2)
    assert refusals(ends.tell(session.plain(request)))
    assert ends.node.done and not ends.node.proven and not ends.acked
    assert ends.tell(session.plain(ends.gateway.hello())) == []  # done is done


def test_a_proof_by_another_key_is_refused():
    ends = Ends()
    ends.tell(session.plain(ends.gateway.hello()))
    forged = messages.encode(messages.PROOF, bytes(messages.TAG_BYTES))
    assert refusals(ends.tell(session.plain(forged))) == [messages.REFUSALS.index("bad_proof")]
    assert ends.node.done and not ends.node.proven


def test_a_proof_without_a_hello_is_refused():
    ends = Ends()
    forged = messages.encode(messages.PROOF, bytes(messages.TAG_BYTES))
    assert refusals(ends.tell(session.plain(forged)))
    assert not ends.node.proven


def test_nothing_unsealed_or_repeated_is_heard_after_the_proof():
    ends = Ends().greet()
    assert refusals(ends.tell(session.plain(messages.encode(ACK, EPOCH, 20))))
    assert not ends.acked
    ends = Ends().greet()
    sealed = ends.channel.seal(messages.encode(ACK, EPOCH, 20))
    assert len(ends.tell(sealed)) == 1
    assert refusals(ends.tell(sealed)) and ends.acked == [(EPOCH, 20)]


def test_every_changed_bit_of_a_sealed_ack_is_refused():
    for bit in range(8 * 22):
        ends = Ends().greet()
        sealed = bytearray(ends.channel.seal(messages.encode(ACK, EPOCH, 20)))
        assert len(sealed) == 22
        sealed[bit // 8] ^= 1 << bit % 8
        ends.tell(bytes(sealed))
        assert not ends.acked and ends.node.done, bit


def test_damaged_frames_are_skipped():
    ends = Ends()
    assert list(ends.node.feed(b"\x05abc\x00" + bytes(3) + b"\xff" * 2000 + b"\x00")) == []
    assert not ends.node.done
    ends.greet()


class Clock:
    def __init__(self):
        self.now = 0

    def ticks_ms(self):
        return self.now

    def ticks_diff(self, later, earlier):
        return later - earlier

    def sleep_ms(self, duration_ms):
        self.now += duration_ms


class Radio:
    """Hands out `writes`, one a poll; every frame sent costs `frame_ms`."""

    def __init__(self, clock, writes=(), frame_ms=0, full=False):
        self.connected = True
        self.sent = []
        self._clock = clock
        self._writes = list(writes)
        self._frame_ms = frame_ms
        self._full = full

    def read(self):
        return self._writes.pop(0) if self._writes else b""

    def write(self, data):
        self._clock.now += self._frame_ms
        self.sent.append(data)
        return not self._full

    def drop(self):
        self.connected = False


class Talker:
    """A dialogue that answers each byte with a frame."""

    def __init__(self, proven):
        self.proven = proven
        self.done = False

    def feed(self, data):
        for octet in data:
            yield bytes([octet])


def host(radio, dialogue, clock):
    fed = []
    visit.serve(radio, dialogue, lambda: fed.append(clock.now), clock)
    assert not radio.connected
    return fed


def test_a_silent_stranger_is_sent_away_in_time():
    clock = Clock()
    host(Radio(clock), Talker(proven=False), clock)
    assert GREETING_TIMEOUT_MS < clock.now <= GREETING_TIMEOUT_MS + 2 * visit.POLL_MS


def test_a_stranger_that_babbles_is_sent_away_sooner():
    clock = Clock()
    slow = [b""] * 300  # 1.5 s of service discovery
    host(Radio(clock, slow + [b"x"] * 1000), Talker(proven=False), clock)
    limit_ms = 300 * visit.POLL_MS + AUTH_TIMEOUT_MS
    assert limit_ms < clock.now <= limit_ms + 2 * visit.POLL_MS


def test_a_proven_gateway_cannot_stay_for_ever():
    clock = Clock()
    fed = host(Radio(clock), Talker(proven=True), clock)
    assert SESSION_TIMEOUT_MS < clock.now <= SESSION_TIMEOUT_MS + 2 * visit.POLL_MS
    assert max(fed[n + 1] - fed[n] for n in range(len(fed) - 1)) <= 2 * visit.POLL_MS


def test_a_long_answer_ends_with_the_time_and_feeds_the_watchdog():
    clock = Clock()
    radio = Radio(clock, [bytes(200)], frame_ms=1000)
    fed = host(radio, Talker(proven=True), clock)
    assert len(radio.sent) == SESSION_TIMEOUT_MS // 1000 + 1
    assert max(fed[n + 1] - fed[n] for n in range(len(fed) - 1)) <= 1000


def test_a_frame_that_is_not_sent_whole_ends_the_visit():
    clock = Clock()
    radio = Radio(clock, [b"abc", b"def"], full=True)
    host(radio, Talker(proven=True), clock)
    assert radio.sent == [b"a"]
