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
BLOB_MAX_BYTES = IDENTITY_LAYOUT.size_bytes + SITE_MAX_BYTES + _CRC_BYTES


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
    """Tell whether `data` is UTF-8 (RFC 3629); MicroPython's decode() takes overlong forms too."""
    at = 0
    while at < len(data):
        size = _utf8_bytes(data[at])
        tail = data[at + 1 : at + size]
        if size == 0 or len(tail) != size - 1 or any(octet & 0xC0 != 0x80 for octet in tail):
            return False
        low, high = _SECOND.get(data[at], (0x80, 0xBF))
        if tail and not low <= tail[0] <= high:
            return False
        at += size
    return True


# First octets behind which not every second one may stand: overlong, surrogate, beyond Unicode.
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}


def _utf8_bytes(first: int) -> int:
    """Return how many octets a character has that begins with `first`; 0: none does."""
    if first < 0x80:
        return 1
    if 0xC2 <= first <= 0xDF:
        return 2
    if 0xE0 <= first <= 0xEF:
        return 3
    return 4 if 0xF0 <= first <= 0xF4 else 0


def address_of(node_id: bytes) -> bytes:
    """Return the Bluetooth address (6 bytes) that a node advertises: its base MAC plus 2.

    Source: ESP-IDF "MAC Address Allocation": the Bluetooth address is the base MAC with 2 added
    to its last octet.
    """
    return bytes(node_id[:5]) + bytes([(node_id[5] + 2) & 0xFF])
