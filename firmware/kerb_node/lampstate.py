"""What a lamp remembers through a reset: one block of RTC memory with a CRC.

Rule: after a watchdog or soft reset the lamp burns on at the level it had, without a blink; after
a loss of power there is no such block, and the fail-safe level holds.
"""

from kerb_wire.layout import Field, Layout

from kerb_node import proven

_LAYOUT = Layout(
    "LampState",
    (
        Field("version", "u8", 1, 1),
        Field("level_pct", "u8", 0, 100),
        Field("override", "u8", 0, 1),
        Field("override_pct", "u8", 0, 100),
        Field("override_left_s", "u32"),
        Field("burn_s", "u32"),
        Field("switch_count", "u32"),
    ),
)


def pack(level_pct, override_pct, override_left_s, burn_s, switch_count):
    """Return the block; override_left_s 0: no override."""
    return proven.pack(
        _LAYOUT,
        1,
        level_pct,
        1 if override_left_s else 0,
        override_pct,
        override_left_s,
        burn_s & 0xFFFFFFFF,
        switch_count & 0xFFFFFFFF,
    )


def unpack(memory):
    """Return the row that RTC memory holds, or None."""
    return proven.unpack(_LAYOUT, memory)
