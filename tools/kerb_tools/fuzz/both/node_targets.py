"""The node's own parsers as functions from bytes: its GATT door, its bus, what it reads at start.

Rule: portable, like the targets of the wire. The firmware's classes are the real ones, over a log
and a lamp that only note what is asked of them; nothing may be raised, an answer is bounded, and
only who proved himself, or whose CRC is right, changes anything.
"""

from kerb_node import config, dialogue, lampstate, modbus, retained
from kerb_node.lampregisters import LampRegisters
from kerb_wire import frame, messages, records, registers, session, settings
from kerb_wire.crc import crc16_modbus, crc32
from kerb_wire.errors import RemoteFault
from kerb_wire.limits import ANSWER_MAX_RECORDS, BACKFILL_MAX_RECORDS

try:
    import wire_targets as wire
except ImportError:
    from kerb_tools.fuzz.both import wire_targets as wire

Broken = wire.Broken
pieces = wire.pieces
EPOCH = 77
LAST_SEQ = 40
UNIT = 17
ADU_MAX_BYTES = 256
_OTHER_UNIT = 18
_PAYLOAD_MAX_BYTES = 512
_COMPLAINTS_MOST = 64
_TEXT_MOST = 400
# What a range may be answered with: full answers and the word that it is over.
_FRAMES_MOST = BACKFILL_MAX_RECORDS // ANSWER_MAX_RECORDS + 2

# What a node says on its console is not what is compared here.
dialogue.print = lambda *_: None


class Log:
    """Records 31 to 40; what was before is lost."""

    def __init__(self):
        self.asked = 0

    def first_seq(self):
        """Return the oldest number."""
        return 31

    def read(self, epoch, first_seq, last_seq):
        """Yield the records of a range."""
        self.asked += 1
        if last_seq - first_seq >= BACKFILL_MAX_RECORDS:
            raise Broken("a range beyond all bounds")
        if first_seq < 31:
            yield records.pack_lost(first_seq, min(30, last_seq), 1)
        for seq in range(max(31, first_seq), min(LAST_SEQ, last_seq) + 1):
            yield records.pack_lamp(3, seq, seq, 70, 0, 0, 0, 0, 0, 0)
        if last_seq > LAST_SEQ:
            yield records.pack_lost(max(first_seq, LAST_SEQ + 1), last_seq, 1)


# --- the GATT door ---


class Door:
    """A dialogue, and what it did."""

    def __init__(self):
        self.acked: list[tuple[int, int]] = []
        self.said = wire.Outcomes()
        self.log = Log()
        describe = lambda nonce: (1, 0, wire.ADDRESS, EPOCH, nonce, 1, 60, 1, LAST_SEQ, 0)
        self.node = dialogue.Dialogue(
            wire.new_ecb,
            wire.KEY,
            lambda size: bytes(range(100, 100 + size)),
            describe,
            self.log,
            lambda epoch, seq: self.acked.append((epoch, seq)),
        )

    def tell(self, data):
        """Feed bytes; return the payloads that answer them, each a whole frame."""
        over = self.node.done
        answers = list(self.node.feed(data))
        whole = frame.Decoder()
        payloads = []
        for answer in answers:
            payloads += whole.feed(answer)
        if len(payloads) != len(answers) or whole.damaged:
            raise Broken("an answer that is no frame")
        if over and answers:
            raise Broken("an answer after the end")
        if len(answers) > _FRAMES_MOST * (data.count(b"\0") + 1):
            raise Broken("more answers than was asked for")
        for one in payloads:
            self.said.append(crc32(one))
        return payloads

    def verdict(self):
        """Return all that both interpreters must agree on."""
        return self.said, self.acked, self.log.asked, self.node.proven, self.node.done


def node_door(data: bytes):
    """A stranger's writes at a node's GATT door, piece by piece."""
    door = Door()
    for piece in pieces(data):
        door.tell(piece)
    if door.node.proven or door.acked or door.log.asked:
        raise Broken("a stranger was believed")
    return door.verdict()


def node_session(data: bytes):
    """A proven gateway that errs: the first byte of each piece says how it is sent.

    0: sealed in its turn; 1: the last one once more; 2: without its last byte; 3: unsealed;
    4: raw bytes, and a frame's end; 5: sealed, one bit changed; 6: sealed and cut in two.
    """
    door = Door()
    gateway = session.GatewayHandshake(wire.new_ecb, wire.KEY, wire.NONCE, 7, 99)
    (hello,) = door.tell(frame.encode(session.plain(gateway.hello())))
    _, proof, channel = gateway.finish(hello[1:])
    door.tell(frame.encode(session.plain(proof)))
    if not door.node.proven:
        raise Broken("a right proof was not believed")
    last = b"\0"
    for piece in pieces(data):
        mode, body = piece[0] % 7, piece[1:]
        asked, acked = door.log.asked, len(door.acked)
        if mode in (0, 6):
            last = channel.seal(body)
            _in_its_turn(door, body, frame.encode(last), mode == 6)
            continue
        if mode == 4:
            door.tell(body + b"\0")
        elif mode == 5:
            last = channel.seal(body)
            at = body[0] % len(last) if body else 0
            changed = bytearray(last)
            changed[at] ^= 1
            door.tell(frame.encode(bytes(changed)))
        else:
            door.tell(frame.encode((last, last[:-1] or b"\0", session.plain(body))[mode - 1]))
        if door.log.asked != asked or len(door.acked) != acked:
            raise Broken("what was not sealed in its turn was done")
    return door.verdict()


def _in_its_turn(door, body, sent, cut):
    """Send what must be heard; an ACK changes what it names and nothing else does."""
    acked, over = len(door.acked), door.node.done
    half = len(sent) // 2 if cut else 0
    door.tell(sent[:half])
    door.tell(sent[half:])
    expected = []
    try:
        kind, row = messages.decode(body)
        if kind == messages.ACK and not over:
            expected = [(row.epoch, row.seq)]
    except RemoteFault:
        pass
    if door.acked[acked:] != expected:
        raise Broken("an acknowledgement that was not asked for, or not heard")


# --- the bus ---


class Lamp:
    """What the registers show of a lamp; notes what they ask of it."""

    node_id = wire.ADDRESS
    epoch = EPOCH
    boot_no = 3
    level_pct = 41
    target_level_pct = 70
    last_seq = LAST_SEQ
    acked_seq = 12
    reason = 2
    command_no = 9
    command_outcome = 1
    bad_frames = 0
    switch_count = 6
    faults = 5

    def __init__(self):
        self.asked = wire.Outcomes()

    def uptime_s(self):
        """Return a time."""
        return 70000

    def burn_min(self):
        """Return a time."""
        return 123456

    def override_left_s(self):
        """Return a time."""
        return 3600

    def reset_cause(self):
        """Return a cause."""
        return 3

    def command(self, *values):
        """Note a command."""
        self.asked.append(values)

    def acknowledge(self, epoch, seq):
        """Note an acknowledgement."""
        self.asked.append((epoch, seq))


def adu(unit, pdu):
    """Return a request as it is on the wire."""
    body = bytes([unit]) + bytes(pdu)
    return body + crc16_modbus(body).to_bytes(2, "little")


def node_bus(data: bytes):
    """Requests on a lamp's bus: the first byte of each piece says how it is sent.

    0: with unit and CRC; 1: one bit of that changed; 2: to another unit; 3: raw bytes; 4: behind
    another unit's talk; 5: the CRC of no bytes.
    """
    lamp = Lamp()
    server = modbus.ModbusServer(UNIT, LampRegisters(lamp, Log()))
    said = wire.Outcomes()
    for piece in pieces(data):
        mode, pdu = piece[0] % 6, piece[1:] or b"\0"
        asked, before = len(lamp.asked), _control(server)
        request = _request(mode, pdu, piece[0])
        if mode == 4:
            request = _found(server, b"\x11\x03" + pdu[:9] + adu(UNIT, pdu), adu(UNIT, pdu))
        answer = server.answer(request)
        said.append(None if answer is None else crc32(answer))
        if answer is not None:
            _whole(answer, request)
        right = len(request) >= 4 and request == adu(UNIT, request[1:-2])
        if not right and (answer is not None or before != _control(server)):
            raise Broken("a frame that is damaged, or another unit's, was heard")
        if len(lamp.asked) > asked and not (right and request[1] in (0x06, 0x10, 0x17)):
            raise Broken("a request that writes nothing was acted on")
    return said, lamp.asked, server.bad_frames


def _request(mode, pdu, first):
    whole = adu(_OTHER_UNIT if mode == 2 else UNIT, pdu)
    if mode == 1:
        changed = bytearray(whole)
        changed[first % len(changed)] ^= 1 << (first & 7)
        return bytes(changed)
    if mode == 3:
        return pdu
    return bytes([UNIT]) + pdu + b"\xff\xff" if mode == 5 else whole


def _found(server, talk, request):
    """Look for the request behind another's talk, as the bus's reader does, byte by byte."""
    for size in range(len(talk)):
        found = server.find(talk[:size])
        if found is not None and not talk[:size].endswith(found):
            raise Broken("a request that was not sent")
        server.is_begun(talk[:size])
        if not 0 <= modbus.request_bytes(talk[:size]) <= 2 * ADU_MAX_BYTES:
            raise Broken("a length that no request has")
    found = server.find(talk)
    if found is None and len(request) == modbus.request_bytes(request):
        raise Broken("a whole request was not found behind another's talk")
    return found or request


def _control(server):
    return server.answer(adu(UNIT, b"\x03" + _CONTROL_BLOCK))


_CONTROL_BLOCK = registers.CONTROL_START.to_bytes(2, "big") + registers.CONTROL_WORDS.to_bytes(
    2, "big"
)


def _whole(answer, request):
    """Broken unless the answer is one to the request, by length, CRC, unit and function."""
    if len(answer) > ADU_MAX_BYTES or answer != adu(UNIT, answer[1:-2]):
        raise Broken("an answer that is no frame of this unit")
    if answer[1] != request[1] and (answer[1] != request[1] | 0x80 or not 1 <= answer[2] <= 4):
        raise Broken("an answer to another request")


# --- what it reads at its start ---


def node_memory(data: bytes):
    """RTC memory after a reset, as a lamp's and as a bin's."""
    rows = []
    for part in (lampstate, retained):
        row = part.unpack(data)
        if row is not None:
            rows.append(tuple(row))
    return rows


def node_settings(data: bytes):
    """A settings file: each setting within its bounds whatever it says, each complaint short."""
    chosen = config.Settings(data)
    for name in settings.SETTINGS:
        if settings.complaint(name, getattr(chosen, name)) is not None:
            raise Broken("a setting out of its bounds")
    if settings.log_complaint(chosen.log_segments, chosen.log_rows) is not None:
        raise Broken("a log larger than the flash")
    if len(chosen.complaints) > _COMPLAINTS_MOST:
        raise Broken("complaints without end")
    if max([0] + [len(one) for one in chosen.complaints]) > _TEXT_MOST:
        raise Broken("a complaint without end")
    # What is JSON at all is judged by each interpreter's own library.


TARGETS = {
    "node_door": node_door,
    "node_session": node_session,
    "node_bus": node_bus,
    "node_memory": node_memory,
    "node_settings": node_settings,
}
