"""Valid inputs of the wire's targets, made by its encoders, and what mends a checksum.

Rule: nothing stored; a format that changes changes its seeds with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from kerb_wire import (
    advert,
    bthome,
    frame,
    keys,
    messages,
    provisioning,
    records,
    registers,
    segment,
    session,
)
from kerb_wire.crc import crc32
from kerb_wire.layout import Field
from kerb_wire.limits import FRAME_PAYLOAD_MAX_BYTES

from kerb_tools.fuzz.both import wire_targets as wire
from kerb_tools.fuzz.both.wire_targets import ADDRESS, KEY, NONCE, new_ecb

RECORDS = (
    records.pack_fill(1, 7, 9, 1234, 3, 0, -85, 90, 0, 7, 7, 1, 3),
    records.pack_fill(
        1, 8, 9, records.NO_DISTANCE, 255, 2, records.NO_TEMPERATURE, 255, 1, 7, 0, 0, 0
    ),
    records.pack_lamp(2, 9, 70000, 65, 2, 0, 5, 1, 123456, 42),
    records.pack_lost(10, 20, 1),
)


def _example(field: Field) -> bytes | int:
    if field.fixed_bytes is not None:
        return bytes(range(1, field.fixed_bytes + 1))
    if field.kind == "rest":
        return RECORDS[0] + RECORDS[2]
    return int(field.high)


def all_messages() -> list[bytes]:
    """Return one message of each kind."""
    found = []
    for kind, layout in messages.LAYOUTS.items():
        values = [_example(field) for field in layout.fields]
        names = [field.name for field in layout.fields]
        if "first_seq" in names and kind != messages.HELLO_NODE:
            values[names.index("first_seq")] = 100
            values[names.index("last_seq")] = 120
        found.append(messages.encode(kind, *values))
    return found


def _readings() -> list[bytes]:
    return [advert.objects_of(records.unpack(one), 0x12345678) for one in RECORDS[:2]]


def _objects() -> list[bytes]:
    every = [(number, 1) for number in sorted(bthome.OBJECTS)]
    some = [every[at : at + 4] for at in range(0, len(every), 4)]
    return _readings() + [bthome.encode_objects(group) for group in some]


def _service_data() -> list[bytes]:
    return [bthome.seal(new_ecb(KEY), ADDRESS, 7, one) for one in _readings()]


def _frames() -> list[bytes]:
    payloads = [b"\x00", bytes(300), bytes(range(256)), RECORDS[0]]
    return [frame.encode(one)[:-1] for one in payloads]


def _streams() -> list[bytes]:
    whole = b"".join(frame.encode(one) for one in (RECORDS[0], bytes(260), b"x"))
    return [b"\x00" + whole, b"\x07" + whole, b"\x01" + b"\x05" * 700 + b"\x00" + whole]


def _identities() -> list[bytes]:
    return [
        provisioning.pack(1, 17, ADDRESS, KEY, "Köln".encode()),
        provisioning.pack(0, 0, ADDRESS, KEY, b"n"),
    ]


def _sealed() -> list[bytes]:
    return [wire.joined()[0].seal(one) for one in all_messages()]


def as_pieces(*pieces: bytes) -> bytes:
    """Return pieces as wire_targets.pieces reads them."""
    return b"".join(bytes([len(one)]) + one for one in pieces if 0 < len(one) < 256)


def _conversations() -> list[bytes]:
    every = [b"\x00" + one for one in all_messages()]
    return [as_pieces(*every[:4]), as_pieces(every[4], b"\x01", every[9], b"\x02", b"\x03ab")]


def _hellos() -> list[bytes]:
    gateway = session.GatewayHandshake(new_ecb, KEY, NONCE, wire.GATEWAY_BOOT, wire.BOOTTIME_S)
    found = []
    for role in range(3):
        node = session.NodeHandshake(new_ecb, KEY)
        fields = (1, role, ADDRESS, 5, NONCE, 1, 2, 3, 4, 5)
        found.append(node.answer(gateway.hello(), NONCE, lambda _, fields=fields: fields))
    return found


def _blocks(table: tuple[tuple[str, int], ...]) -> list[bytes]:
    values = {name: index for index, (name, _) in enumerate(table)}
    return [struct.pack(f">{len(words)}H", *words) for words in [registers.pack(table, values)]]


def _positions() -> list[bytes]:
    return [struct.pack(">HH", *registers.file_position(seq)) for seq in (1, 255, 256, 99999)]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "message": all_messages,
    "record": lambda: list(RECORDS),
    "frame": _frames,
    "unstuff": _frames,
    "stream": _streams,
    "chunks": lambda: [b"\x00" + RECORDS[0], b"\xe0" + bytes(512)],
    "objects": _objects,
    "reading": _readings,
    "counter": _service_data,
    "unseal": _service_data,
    "sealed_reading": lambda: [b"\x07\0\0\0" + one for one in _readings()],
    "identity": _identities,
    "segment_header": lambda: [segment.pack_header(77, 5)],
    "segment_row": lambda: [segment.pack_row(one) for one in RECORDS],
    "plain": lambda: [session.plain(one) for one in all_messages()],
    "sealed": _sealed,
    "conversation": _conversations,
    "hello": _hellos,
    "proof": lambda: [messages.encode(messages.PROOF, bytes(8)), *all_messages()[:2]],
    "status": lambda: _blocks(registers.STATUS),
    "control": lambda: _blocks(registers.CONTROL),
    "file_position": _positions,
    "setting": lambda: [bytes([index]) + struct.pack("<q", 1 << 40) for index in range(32)],
}


# --- what mends a checksum ---


def _tail_crc(data: bytes) -> bytes:
    return data[:-4] + struct.pack("<I", crc32(data[:-4])) if len(data) > 4 else data


def _head_crc(size: int) -> Callable[[bytes], bytes]:
    def repair(data: bytes) -> bytes:
        if len(data) < size:
            return data
        return data[: size - 4] + struct.pack("<I", crc32(data[: size - 4])) + data[size:]

    return repair


def _frame(data: bytes) -> bytes:
    """Return a whole frame around what may once have been one."""
    return frame.encode((data or b"x")[:FRAME_PAYLOAD_MAX_BYTES])[:-1]


def _tagged(data: bytes) -> bytes:
    """Return a node's hello with the tag that its key gives it."""
    if len(data) <= messages.TAG_BYTES:
        return data
    body = data[: -messages.TAG_BYTES]
    gateway = session.GatewayHandshake(new_ecb, KEY, NONCE, wire.GATEWAY_BOOT, wire.BOOTTIME_S)
    transcript = gateway.hello() + body
    key = keys.derive(new_ecb, keys.up_key(new_ecb, KEY), b"session", transcript)
    return body + keys.cmac(new_ecb(key), b"node\x00" + transcript)[: messages.TAG_BYTES]


REPAIRS: dict[str, Callable[[bytes], bytes]] = {
    "frame": _frame,
    "identity": _tail_crc,
    "segment_header": _head_crc(segment.HEADER_BYTES),
    "segment_row": _head_crc(segment.ROW_BYTES),
    "hello": _tagged,
}
