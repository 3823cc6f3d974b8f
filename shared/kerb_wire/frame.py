"""Frames over any byte stream (GATT chunks, USB serial): COBS, a CRC-32 and a zero between.

Rule: bytes in, payloads out; "need more" is an empty list, damage is counted and skipped, and
the buffer never grows past the largest frame.

Source of the stuffing: Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999.
"""

import struct

from kerb_wire.crc import crc32
from kerb_wire.errors import CHECKSUM, RANGE, SIZE, TRUNCATED, LocalFault, RemoteFault
from kerb_wire.limits import FRAME_PAYLOAD_MAX_BYTES

_CRC_BYTES = 4
_BLOCK_MAX_BYTES = 254
# COBS adds one byte in every 254 and one at the start.
_STUFFED_MAX_BYTES = (
    FRAME_PAYLOAD_MAX_BYTES + _CRC_BYTES + 1 + FRAME_PAYLOAD_MAX_BYTES // _BLOCK_MAX_BYTES + 1
)


def stuff(data: bytes) -> bytes:
    """Return `data` without zero bytes (COBS), the closing zero not included."""
    out = bytearray()
    begin = 0
    while True:
        zero = data.find(b"\x00", begin)
        end = len(data) if zero < 0 else zero
        # A full block stands for no zero: one that a zero follows needs an empty block behind it.
        most = _BLOCK_MAX_BYTES if zero < 0 else _BLOCK_MAX_BYTES - 1
        while end - begin > most:
            _add_block(out, data[begin : begin + _BLOCK_MAX_BYTES])
            begin += _BLOCK_MAX_BYTES
        _add_block(out, data[begin:end])
        if zero < 0:
            return bytes(out)
        begin = zero + 1


def _add_block(out: bytearray, block: bytes) -> None:
    out.append(len(block) + 1)
    out.extend(block)


def unstuff(data: bytes) -> bytes:
    """Return what was stuffed; RemoteFault if a block is cut short or a zero stands inside."""
    out = bytearray()
    at = 0
    size = len(data)
    while at < size:
        count = data[at]
        if count == 0:
            raise RemoteFault(RANGE, "a zero inside a frame")
        if at + count > size:
            raise RemoteFault(TRUNCATED, f"a block of {count} bytes is cut short")
        out.extend(data[at + 1 : at + count])
        at += count
        if count < 255 and at < size:
            out.append(0)
    return bytes(out)


def encode(payload: bytes) -> bytes:
    """Return `payload` (1 to FRAME_PAYLOAD_MAX_BYTES bytes) as a frame with its closing zero."""
    if not 1 <= len(payload) <= FRAME_PAYLOAD_MAX_BYTES:
        raise LocalFault("payload", len(payload), f"1 to {FRAME_PAYLOAD_MAX_BYTES} bytes")
    return stuff(bytes(payload) + struct.pack("<I", crc32(payload))) + b"\x00"


def decode(stuffed: bytes) -> bytes:
    """Return the payload of one frame, given without its closing zero; RemoteFault if damaged."""
    if len(stuffed) > _STUFFED_MAX_BYTES:
        raise RemoteFault(SIZE, f"a frame of {len(stuffed)} bytes")
    data = unstuff(stuffed)
    if len(data) <= _CRC_BYTES:
        raise RemoteFault(TRUNCATED, f"a frame of {len(data)} bytes has no payload")
    payload = data[:-_CRC_BYTES]
    if len(payload) > FRAME_PAYLOAD_MAX_BYTES:
        raise RemoteFault(SIZE, f"a payload of {len(payload)} bytes")
    if struct.unpack("<I", data[-_CRC_BYTES:])[0] != crc32(payload):
        raise RemoteFault(CHECKSUM, "the frame's CRC-32 does not match")
    return payload


class Decoder:
    """Cuts a byte stream into payloads; `damaged` counts what had to be thrown away."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping = False
        self.damaged = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of any length; return the whole payloads among them, oldest first."""
        payloads: list[bytes] = []
        data = bytes(data)
        begin = 0
        end = data.find(b"\x00")
        while end >= 0:
            self._keep(data, begin, end)
            self._close(payloads)
            begin = end + 1
            end = data.find(b"\x00", begin)
        self._keep(data, begin, len(data))
        return payloads

    def _keep(self, data: bytes, begin: int, end: int) -> None:
        if len(self._buffer) + end - begin > _STUFFED_MAX_BYTES:
            self._skipping = True
        if not self._skipping:
            self._buffer.extend(data[begin:end])

    def _close(self, payloads: list[bytes]) -> None:
        if self._skipping:
            self.damaged += 1
        elif self._buffer:
            try:
                payloads.append(decode(bytes(self._buffer)))
            except RemoteFault:
                self.damaged += 1
        self._skipping = False
        self._buffer = bytearray()
