"""Every decoder of the wire as a function from bytes to what it made of them.

Rule: pure and portable; a decoder may only raise RemoteFault, and what it takes must pack back
into the very bytes that it came from, where the format has one form only.

`say(name, data)` puts the answer into a line of text that both interpreters must agree on.
"""

from kerb_wire import (
    advert,
    bthome,
    frame,
    gatt,
    messages,
    provisioning,
    records,
    registers,
    segment,
    session,
    settings,
)
from kerb_wire.crc import crc32
from kerb_wire.errors import RemoteFault, WireError

try:
    import cryptolib

    def new_ecb(key: bytes):
        """Return AES-ECB of one block, as MicroPython has it."""
        return cryptolib.aes(key, 1).encrypt

except ImportError:
    from kerb_gateway.crypto import new_ecb

KEY = bytes(range(16))
ADDRESS = bytes.fromhex("a4cf12000003")
NONCE = bytes(range(16, 32))
GATEWAY_BOOT = 7
BOOTTIME_S = 99
_HELD_MAX_BYTES = 1024


class Broken(Exception):
    """A promise of a decoder that it did not keep."""


class Outcomes:
    """What came of many pieces, in memory that does not grow: the first as they are, then a CRC.

    A list of hundreds of short texts leaves a small heap without a piece of 2 KB, however much of
    it is free; then the bench ran out of memory and not what it tests.
    """

    FIRST = 12

    def __init__(self):
        self.count = 0
        self.first = []
        self.crc = 0

    def append(self, outcome):
        """Take one more."""
        self.count += 1
        if len(self.first) < self.FIRST:
            self.first.append(outcome)
        else:
            self.crc = crc32(text_of((self.crc, outcome)).encode())

    def __len__(self):
        return self.count


def _same(packed: bytes, data: bytes) -> None:
    if bytes(packed) != bytes(data):
        raise Broken("what was taken does not pack back into the same bytes")


def message(data: bytes):
    """A message of a session."""
    kind, row = messages.decode(data)
    _same(messages.encode(kind, *row), data)
    if kind == messages.BACKFILL_ANSWER:
        _same(b"".join(messages.split_records(row)), row.records)
    return kind, row


_RECORD_LAYOUTS = {
    records.FILL: records.FILL_LAYOUT,
    records.LAMP: records.LAMP_LAYOUT,
    records.LOST: records.LOST_LAYOUT,
}


def record(data: bytes):
    """A record of the log."""
    row = records.unpack(data)
    _same(_RECORD_LAYOUTS[row.kind].pack(*row), data)
    if row.seq != records.seq_of(data):
        raise Broken("seq_of says another number")
    if row.kind == records.LAMP and row.command_no != records.command_no_of(data):
        raise Broken("command_no_of says another number")
    return row


def one_frame(data: bytes):
    """A frame without its closing zero."""
    payload = frame.decode(data)
    again = frame.decode(frame.encode(payload)[:-1])
    _same(again, payload)
    return payload


def unstuff(data: bytes):
    """The bytes inside a frame."""
    plain = frame.unstuff(data)
    _same(frame.unstuff(frame.stuff(plain)), plain)
    return plain


def stream(data: bytes):
    """A byte stream that arrives in pieces; the first byte says how it is cut."""
    decoder = frame.Decoder()
    whole = frame.Decoder()
    step = data[0] if data else 0
    body = data[1:]
    got = []
    at = 0
    while at < len(body):
        size = 1 + (step + at) % 61 if step else len(body)
        got.extend(decoder.feed(body[at : at + size]))
        at += size
        if len(decoder._buffer) > _HELD_MAX_BYTES:
            raise Broken("the decoder holds more than a frame")
    if got != whole.feed(body) or decoder.damaged != whole.damaged:
        raise Broken("how a stream is cut changes what is read")
    return got, decoder.damaged


def objects(data: bytes):
    """BTHome objects."""
    return bthome.decode_objects(data)


def reading(data: bytes):
    """The objects of a bin's advert."""
    return advert.reading_of(data)


def counter(data: bytes):
    """The counter that encrypted service data claims."""
    return bthome.counter_of(data)


def unseal(data: bytes):
    """Service data as anybody may send it."""
    return bthome.unseal(new_ecb(KEY), ADDRESS, data)


def sealed_reading(data: bytes):
    """Objects that come with the right key: 4 bytes of counter, the rest as they are."""
    number = int.from_bytes(data[:4], "little")
    sealed = bthome.seal(new_ecb(KEY), ADDRESS, number, data[4:])
    opened, plaintext = bthome.unseal(new_ecb(KEY), ADDRESS, sealed)
    if opened != number or plaintext != bytes(data[4:]):
        raise Broken("an advert does not open to what was sealed")
    return advert.reading_of(plaintext)


def identity(data: bytes):
    """A provisioning blob."""
    row = provisioning.unpack(data)
    row.site.decode()  # what was taken is text, by CPython's strict reading
    _same(provisioning.pack(row.role, row.unit, row.node_id, row.root_key, row.site), data)
    return row


def segment_header(data: bytes):
    """The header of a log segment; what follows it is not looked at."""
    row = segment.unpack_header(data)
    _same(segment.pack_header(row.epoch, row.first_seq), data[: segment.HEADER_BYTES])
    return row


def segment_row(data: bytes):
    """A row of a log segment."""
    packed = segment.unpack_row(data)
    _same(segment.pack_row(packed), data[: segment.ROW_BYTES])
    return packed


def plain(data: bytes):
    """A payload before the proof."""
    return session.open_plain(data)


def joined():
    """Return (node's channel, gateway's channel) of a session that both have proven."""
    gateway = session.GatewayHandshake(new_ecb, KEY, NONCE, GATEWAY_BOOT, BOOTTIME_S)
    node = session.NodeHandshake(new_ecb, KEY)
    fields = lambda nonce: (1, 0, ADDRESS, 5, nonce, 1, 2, 3, 4, 5)
    _, proof, down = gateway.finish(node.answer(gateway.hello(), NONCE, fields))
    return node.check(messages.decode(proof)[1]), down


def sealed(data: bytes):
    """A sealed payload as anybody may send it."""
    return joined()[1].open(data)


def conversation(data: bytes):
    """A proven peer's payloads: the first byte of each says how it is sent.

    0: sealed in its turn; 1: the last one once more; 2: without its last byte; 3: unsealed.
    """
    up, down = joined()
    said = Outcomes()
    last = b""
    for piece in pieces(data):
        mode, body = piece[0] & 3, bytes(piece[1:])
        if mode == 0:
            last = payload = up.seal(body)
        else:
            payload = (last, last[:-1], b"\x00" + body)[mode - 1]
        try:
            said.append(down.open(payload))
            if mode:
                raise Broken("a payload that was not sealed in its turn was taken")
        except RemoteFault as fault:
            said.append(fault.reason)
    return said


def pieces(data: bytes):
    """Yield the pieces of an input: a length byte, then that many bytes (at least one)."""
    at = 0
    while at + 1 < len(data):
        size = max(1, data[at])
        yield bytes(data[at + 1 : at + 1 + size])
        at += 1 + size


def hello(data: bytes):
    """A node's answer to the gateway's hello."""
    gateway = session.GatewayHandshake(new_ecb, KEY, NONCE, GATEWAY_BOOT, BOOTTIME_S)
    row, proof, _ = gateway.finish(data)
    return row, proof


def proof(data: bytes):
    """A gateway's proof, as the node sees it."""
    node = session.NodeHandshake(new_ecb, KEY)
    fields = lambda nonce: (1, 0, ADDRESS, 5, nonce, 1, 2, 3, 4, 5)
    node.answer(messages.encode(messages.HELLO_GATEWAY, 1, NONCE, 1, 2), NONCE, fields)
    kind, row = messages.decode(data)
    if kind != messages.PROOF:
        return kind
    node.check(row)
    raise Broken("a proof without the key was taken")


def _words(data: bytes):
    return [data[at] << 8 | data[at + 1] for at in range(0, len(data) - 1, 2)]


def status(data: bytes):
    """A lamp's status block."""
    values = registers.unpack(registers.STATUS, _words(data))
    if registers.pack(registers.STATUS, values) != _words(data):
        raise Broken("the status block does not pack back")
    return sorted(values.items())


def control(data: bytes):
    """A lamp's control block."""
    values = registers.unpack(registers.CONTROL, _words(data))
    if registers.pack(registers.CONTROL, values) != _words(data):
        raise Broken("the control block does not pack back")
    return sorted(values.items())


def file_position(data: bytes):
    """Where a file read starts: file number and record number, 16 bits each."""
    words = (_words(data) + [0, 0])[:2]
    offset = registers.file_offset(words[0], words[1])
    if registers.file_position(offset) != tuple(words):
        raise Broken("a file position does not lead back to itself")
    return offset


def setting(data: bytes):
    """A setting's name (by its index, or the bytes themselves) and a whole number."""
    names = sorted(settings.SETTINGS)
    index = data[0] if data else 0
    name = names[index] if index < len(names) else repr(bytes(data[1:9]))
    value = int.from_bytes(data[1:9], "little") - (1 << 40)
    return settings.complaint(name, value)


def chunks(data: bytes):
    """A payload through frames and ATT-sized values: the first byte chooses the MTU."""
    if len(data) < 2:
        return None
    payload = data[1:513]
    decoder = frame.Decoder()
    got = []
    mtu_bytes = gatt.ATT_MTU_DEFAULT_BYTES + data[0]
    for chunk in gatt.chunks(frame.encode(payload), mtu_bytes):
        if len(chunk) > mtu_bytes - gatt.ATT_HEADER_BYTES:
            raise Broken("a chunk is larger than the MTU allows")
        got.extend(decoder.feed(chunk))
    if got != [bytes(payload)] or decoder.damaged:
        raise Broken("a payload does not come through its chunks")
    return len(payload)


TARGETS = {
    "message": message,
    "record": record,
    "frame": one_frame,
    "unstuff": unstuff,
    "stream": stream,
    "chunks": chunks,
    "objects": objects,
    "reading": reading,
    "counter": counter,
    "unseal": unseal,
    "sealed_reading": sealed_reading,
    "identity": identity,
    "segment_header": segment_header,
    "segment_row": segment_row,
    "plain": plain,
    "sealed": sealed,
    "conversation": conversation,
    "hello": hello,
    "proof": proof,
    "status": status,
    "control": control,
    "file_position": file_position,
    "setting": setting,
}


def text_of(value) -> str:
    """Return `value` as text that both interpreters write alike."""
    if isinstance(value, (bytes, bytearray)):
        # MicroPython's hex() of nothing is no str.
        return "x" + bytes(value).hex() if value else "x"
    if isinstance(value, (tuple, list)):
        inside = ",".join([text_of(one) for one in value])
        return f"{type(value).__name__}({inside})"
    if isinstance(value, Outcomes):
        return f"{value.count} of them, {text_of(value.first)}, {value.crc}"
    return repr(value)


def say(target, data: bytes) -> str:
    """Return in one line what a target makes of `data`, whatever happens."""
    try:
        return "took " + text_of(target(data))
    except RemoteFault as fault:
        return f"refused {fault.reason} {fault.detail}"
    except WireError as fault:
        return f"CRASH {type(fault).__name__} {fault}"
    except Exception as error:
        return f"CRASH {type(error).__name__}"
