"""Memory that proves itself: a row of a layout and its CRC-32 in RTC memory.

Rule: what does not prove itself, as after a loss of power, is as good as none.
"""

import struct

from kerb_wire.crc import crc32
from kerb_wire.errors import WireError

_CRC_BYTES = 4


def pack(layout, *values):
    """Return the block for RTC memory: `values` in the layout's order, and their CRC."""
    body = layout.pack(*values)
    return body + struct.pack("<I", crc32(body))


def unpack(layout, memory):
    """Return the row of `layout` that `memory` begins with, or None."""
    size = layout.size_bytes
    if len(memory) < size + _CRC_BYTES:
        return None
    body = bytes(memory[:size])
    if struct.unpack("<I", bytes(memory[size : size + _CRC_BYTES]))[0] != crc32(body):
        return None
    try:
        return layout.unpack(body)
    except WireError:
        return None
