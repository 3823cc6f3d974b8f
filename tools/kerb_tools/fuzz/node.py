"""Targets: the node's own parsers, on both interpreters; there are none without a checkout.

Rule: the firmware is no part of an installed package; what it takes is made here by the wire's
encoders, and mended where a blind change always breaks it.
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

from kerb_wire import frame, messages, registers, session
from kerb_wire.crc import crc32
from kerb_wire.settings import SETTINGS

from kerb_tools.fuzz.both import wire_targets as wire
from kerb_tools.fuzz.target import Run, Target
from kerb_tools.fuzz.wire_seeds import all_messages, as_pieces

FIRMWARE = Path(__file__).resolve().parents[3] / "firmware"
_MOST_BYTES = 1200
_WORDS = (
    *(f'"{name}"'.encode() for name in SETTINGS),
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"-1", b"1e400", b"1.5", b"NaN",
    b"9" * 60, b"\xff", b"\\ud800", b"\\u0000", b"\0", b"[[[[[[[[", b"{}",
)  # fmt: skip


def _targets() -> Any:
    """Return the module of the targets; the firmware's folder is put on the path for it."""
    if str(FIRMWARE) not in sys.path:
        sys.path.append(str(FIRMWARE))
    return importlib.import_module("kerb_tools.fuzz.both.node_targets")


def _strangers() -> list[bytes]:
    gateway = session.GatewayHandshake(wire.new_ecb, wire.KEY, wire.NONCE, 7, 99)
    hello = frame.encode(session.plain(gateway.hello()))
    proof = frame.encode(session.plain(messages.encode(messages.PROOF, bytes(8))))
    others = [frame.encode(session.plain(one)) for one in all_messages()]
    return [
        as_pieces(hello, proof),
        as_pieces(hello[:9], hello[9:] + hello, proof),
        as_pieces(proof, hello),
        as_pieces(hello, frame.encode(b"\x01" + bytes(40)), bytes(250)),
        *(as_pieces(hello, one) for one in others),
    ]


def _gateways() -> list[bytes]:
    ask = b"\0" + messages.encode(messages.BACKFILL_REQUEST, 77, 1, 40)
    ack = b"\0" + messages.encode(messages.ACK, 77, 40)
    bye = b"\0" + messages.encode(messages.BYE)
    every = [bytes([mode]) + one for mode in (0, 3, 6) for one in all_messages()]
    return [
        as_pieces(ask, ack, bye, ack),
        as_pieces(ack, b"\x01", ack),
        as_pieces(ask, b"\x02", ack),
        as_pieces(b"\x05" + ack[1:], ack),
        as_pieces(b"\x04\x05abc\0", ack, b"\x06" + ask[1:]),
        *(as_pieces(one, ack) for one in every),
    ]


def _requests() -> list[bytes]:
    words = registers.pack(
        registers.CONTROL,
        {name: 0 for name, _ in registers.CONTROL}
        | {"new_command_no": 5, "new_hold_s": 9, "echo": 1},
    )
    values = struct.pack(f">{len(words)}H", *words)
    write = struct.pack(">HHB", registers.CONTROL_START, len(words), len(values)) + values
    echo = struct.pack(">HH", registers.ECHO_ADDRESS, 1 + registers.STATUS_WORDS)
    where = struct.pack(">HH", *registers.file_position(31))
    pdus = (
        b"\x04" + struct.pack(">HH", 0, registers.STATUS_WORDS),
        b"\x03" + echo,
        b"\x06" + struct.pack(">HH", registers.ECHO_ADDRESS, 6),
        b"\x10" + write,
        b"\x17" + echo + write,
        b"\x14\x07\x06" + where + struct.pack(">H", 10 * registers.RECORD_WORDS),
        b"\x2b\x0e\x01\x00",
        b"\x2b\x0e\x04\x80",
    )
    return [
        *(as_pieces(*(bytes([mode]) + one for mode in range(6))) for one in pdus),
        as_pieces(*(b"\0" + one for one in pdus)),
        as_pieces(*(b"\x04" + one for one in pdus)),
    ]


def _memories() -> list[bytes]:
    from kerb_node import lampstate, retained  # the checkout's

    values = dict.fromkeys(retained.FIELDS, 1) | {"record": bytes(24)}
    return [lampstate.pack(40, 30, 90, 7000, 6), retained.pack(**values)]


def _sums(data: bytes) -> bytes:
    """Return memory whose CRC is right, as a lamp's or as a bin's, whichever is nearer."""
    for size in sorted((len(one) for one in _memories()), reverse=True):
        if len(data) >= size:
            return data[: size - 4] + struct.pack("<I", crc32(data[: size - 4])) + data[size:]
    return data


def _settings() -> list[bytes]:
    every = {name: low for name, (_, low, _) in SETTINGS.items()}
    wrong = {"pings": 99, "pongs": 1, "advert_ms": "x", "log_rows": True, "reach_mm": [1, {}]}
    texts = [json.dumps(one).encode() for one in (every, wrong)]
    deep = b'{"pings":' + b"[" * 500 + b"]" * 500 + b"}"
    return [
        *texts,
        deep,
        b"[" * 1000,
        b"[]",
        b"{",
        b'{"gr\xf6\xdfe":1}',
        b'{"pings":"' + b"x" * 900,
    ]


def _pieces(data: bytes) -> bytes:
    return as_pieces(*wire.pieces(data))


def _target(name: str, seeds: Any, **more: Any) -> Target:
    function: Run = _targets().TARGETS[name]
    about = (function.__doc__ or name).split("\n")[0].rstrip(".")
    traced = ("kerb_wire", "kerb_node")
    most = {"most_bytes": _MOST_BYTES} | more  # a line of input, too, lies in the small heap
    return Target(name, about, lambda: function, seeds, (), both=True, traced=traced, **most)


TARGETS = (
    (
        _target("node_door", _strangers, repair=_pieces),
        _target("node_session", _gateways, repair=_pieces),
        _target("node_bus", _requests, repair=_pieces),
        _target("node_memory", _memories, repair=_sums, most_bytes=200),
        _target("node_settings", _settings, tokens=_WORDS),
    )
    if FIRMWARE.is_dir()
    else ()
)
