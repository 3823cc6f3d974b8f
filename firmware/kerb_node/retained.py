"""What a bin remembers through a deep sleep: one block of RTC memory with a CRC.

Rule: memory that does not prove itself is as good as none; then the node starts as after a loss
of power.
"""

import struct

from kerb_wire.crc import crc32
from kerb_wire.errors import WireError
from kerb_wire.layout import Field, Layout
from kerb_wire.records import RECORD_BYTES

_LAYOUT = Layout(
    "Retained",
    (
        Field("version", "u8", 1, 1),
        Field("boot_no", "u16"),
        Field("epoch", "u32"),
        Field("next_seq", "u32"),
        Field("block_end", "u32"),
        Field("acked_seq", "u32"),
        Field("uptime_s", "u32"),
        Field("uptime_rest_ms", "u16", 0, 999),
        Field("clock_s", "u32"),  # of the clock that runs through deep sleep, when it began
        Field("clock_rest_ms", "u16", 0, 999),
        Field("planned_ms", "u32"),
        Field("wakes", "u32"),
        Field("greeted", "u8", 0, 1),  # a gateway has proved itself since this boot
        Field("same_count", "u8"),  # wakes in a row with the very same echo
        Field("last_echo_us", "u32"),
        Field("service", "u8", 0, 1),
        Field("tilted", "u8", 0, 1),
        Field("record", f"bytes{RECORD_BYTES}"),
    ),
)
FIELDS = tuple(field.name for field in _LAYOUT.fields)


def pack(**values):
    """Return the block for RTC memory; every field of FIELDS but `version` must be given."""
    values["version"] = 1
    body = _LAYOUT.pack(*[values[name] for name in FIELDS])
    return body + struct.pack("<I", crc32(body))


def unpack(memory):
    """Return the row that RTC memory holds, or None if it holds none."""
    size = _LAYOUT.size_bytes
    if len(memory) < size + 4:
        return None
    body = bytes(memory[:size])
    if struct.unpack("<I", bytes(memory[size : size + 4]))[0] != crc32(body):
        return None
    try:
        return _LAYOUT.unpack(body)
    except WireError:
        return None
