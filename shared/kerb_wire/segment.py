"""A segment of a node's reading log as it lies on flash: a header, then rows of record + CRC-32.

Rule: append-only; a torn last row (power cut) is skipped and counted, a damaged row is reported
and never guessed at. The node writes it, the set checker reads it from a flash image.
"""

import struct

from kerb_wire.crc import crc32
from kerb_wire.errors import CHECKSUM, RANGE, TRUNCATED, RemoteFault
from kerb_wire.layout import Field, Layout
from kerb_wire.records import RECORD_BYTES

MAGIC = b"KSEG"
ROW_BYTES = RECORD_BYTES + 4

_HEADER = Layout(
    "SegmentHeader",
    (
        Field("magic", "bytes4"),
        Field("version", "u8", 1, 1),
        Field("reserved", "bytes3"),
        Field("epoch", "u32"),
        Field("first_seq", "u32"),  # of the first row; rows ascend, with holes for unused numbers
    ),
)
HEADER_BYTES = _HEADER.size_bytes + 4


def pack_header(epoch: int, first_seq: int) -> bytes:
    """Return the header that opens a segment."""
    body = _HEADER.pack(MAGIC, 1, bytes(3), epoch, first_seq)
    return body + struct.pack("<I", crc32(body))


def unpack_header(data: bytes):
    """Return the SegmentHeader row of a segment's first HEADER_BYTES bytes; RemoteFault else."""
    if len(data) < HEADER_BYTES:
        raise RemoteFault(TRUNCATED, f"a segment header of {len(data)} bytes")
    body = bytes(data[: HEADER_BYTES - 4])
    if struct.unpack("<I", bytes(data[HEADER_BYTES - 4 : HEADER_BYTES]))[0] != crc32(body):
        raise RemoteFault(CHECKSUM, "the segment header's CRC-32 does not match")
    row = _HEADER.unpack(body)
    if row.magic != MAGIC or any(row.reserved):
        raise RemoteFault(RANGE, "not a segment of a reading log")
    return row


def pack_row(record: bytes) -> bytes:
    """Return a packed 24-byte record with its CRC-32."""
    return bytes(record) + struct.pack("<I", crc32(record))


def unpack_row(data: bytes) -> bytes:
    """Return the 24-byte record of one row; RemoteFault (TRUNCATED, CHECKSUM) if damaged."""
    if len(data) < ROW_BYTES:
        raise RemoteFault(TRUNCATED, f"a row of {len(data)} of {ROW_BYTES} bytes")
    record = bytes(data[:RECORD_BYTES])
    if struct.unpack("<I", bytes(data[RECORD_BYTES:ROW_BYTES]))[0] != crc32(record):
        raise RemoteFault(CHECKSUM, "the row's CRC-32 does not match")
    return record
