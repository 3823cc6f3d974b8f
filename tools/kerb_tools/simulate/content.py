"""Whether a message says what its node's record says.

Rule: every value is compared; times only if the message carries them.
"""

from __future__ import annotations

import struct
from typing import Any

from kerb_check import derived
from kerb_wire import records, words

_FILL = struct.Struct("<BBHIIHBBhBBBBBB")
_LAMP = struct.Struct("<BBHIIBBBBII")


def is_same(record: bytes, message: dict[str, Any], geometry: dict[str, Any] | None) -> bool:
    """Tell whether a message says what its node's record says, and what follows from it.

    geometry: of the node's container, if the configuration has one.
    """
    if derived.wrong(message, geometry):
        return False
    if record[1] == records.FILL:
        _, _, boot_no, _, uptime_s, mm, sigma, quality, tenths, *more = _FILL.unpack(record)
        battery, event, _, _, flags, log = more
        same = (
            message["distance_mm"] == (None if mm == records.NO_DISTANCE else mm)
            and message["sigma_mm"] == sigma
            and message["quality"] == words.QUALITIES[quality]
            and message["temperature_c"] == tenths / 10
            and message["battery_pct"] == battery
            and message["event"] == words.EVENTS[event]
            and message["flags"] == flags
            and message["backlog"] == log
        )
    else:
        _, _, boot_no, _, uptime_s, level, reason, faults, ended, burn_min, command_no = (
            _LAMP.unpack(record)
        )
        same = (
            message["level_pct"] == level
            and message["reason"] == words.REASONS[reason]
            and message["faults"] == faults
            and message["burn_min"] == burn_min
            and message["event"] == words.EVENTS[ended & 15]
            and (message["outcome"] or "none") == words.OUTCOMES[ended >> 4]
            and (message["command_no"] or 0) == command_no
        )
    if message["via"] == "advert":
        return bool(same)
    return bool(same and (message["boot_no"], message["uptime_s"]) == (boot_no, uptime_s))
