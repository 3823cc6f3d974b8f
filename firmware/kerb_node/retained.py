"""What a bin remembers through a deep sleep: one block of RTC memory with a CRC.

Rule: memory that does not prove itself is as good as none; then the node starts as after a loss
of power.
"""

from kerb_wire.layout import Field, Layout
from kerb_wire.records import RECORD_BYTES

from kerb_node import proven

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
    return proven.pack(_LAYOUT, *[values[name] for name in FIELDS])


def unpack(memory):
    """Return the row that RTC memory holds, or None if it holds none."""
    return proven.unpack(_LAYOUT, memory)
