"""The identity of a node as one blob: who it is, its root key, its role and site, and a CRC.

Rule: the same bytes lie in NVS and, as the second copy, in /identity.bin; a damaged copy is
refused, never guessed at. The key is made on the host (an ESP32's os.urandom is weak while its
radio is off).
"""

import struct

from kerb_wire.crc import crc32
from kerb_wire.errors import CHECKSUM, RANGE, TRUNCATED, LocalFault, RemoteFault
from kerb_wire.layout import Field, Layout
from kerb_wire.limits import SITE_MAX_BYTES
from kerb_wire.words import ROLES

MAGIC = b"KERB"
_CRC_BYTES = 4

IDENTITY_LAYOUT = Layout(
    "Identity",
    (
        Field("magic", "bytes4"),
        Field("version", "u8", 1, 1),
        Field("role", "u8", 0, len(ROLES) - 1),
        Field("unit", "u8", 0, 247),  # Modbus unit; 0: not on a bus
        Field("node_id", "bytes6"),
        Field("root_key", "bytes16"),
        Field("site", "rest", 1, SITE_MAX_BYTES),  # UTF-8
    ),
)


def pack(role: int, unit: int, node_id: bytes, root_key: bytes, site: bytes) -> bytes:
    """Return the blob; role: a number of words.ROLES; site: 1 to 24 bytes of UTF-8."""
    body = IDENTITY_LAYOUT.pack(MAGIC, 1, role, unit, node_id, root_key, site)
    if not _is_utf8(site):
        raise LocalFault("Identity.site", site, "UTF-8")
    return body + struct.pack("<I", crc32(body))


def unpack(blob: bytes):
    """Return the Identity row; RemoteFault if the blob is short, damaged or of another kind."""
    if len(blob) <= IDENTITY_LAYOUT.size_bytes + _CRC_BYTES:
        raise RemoteFault(TRUNCATED, f"an identity of {len(blob)} bytes")
    body = bytes(blob[:-_CRC_BYTES])
    if struct.unpack("<I", bytes(blob[-_CRC_BYTES:]))[0] != crc32(body):
        raise RemoteFault(CHECKSUM, "the identity's CRC-32 does not match")
    row = IDENTITY_LAYOUT.unpack(body)
    if row.magic != MAGIC:
        raise RemoteFault(CHECKSUM, "not an identity blob")
    if not _is_utf8(row.site):
        raise RemoteFault(RANGE, f"Identity.site = {row.site!r}: UTF-8")
    return row


def _is_utf8(data: bytes) -> bool:
    try:
        bytes(data).decode()
    except UnicodeError:
        return False
    return True


def address_of(node_id: bytes) -> bytes:
    """Return the Bluetooth address (6 bytes) that a node advertises: its base MAC plus 2.

    Source: ESP-IDF "MAC Address Allocation": the Bluetooth address is the base MAC with 2 added
    to its last octet.
    """
    return bytes(node_id[:5]) + bytes([(node_id[5] + 2) & 0xFF])
