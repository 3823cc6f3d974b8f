"""What a decoded advert or record says, as columns of the readings table.

Rule: a value that the node could not measure is None, never a number that looks like one.
"""

from __future__ import annotations

from typing import Any

from kerb_wire import records, words

from kerb_gateway.bins.geometry import fill_pct
from kerb_gateway.model import Node


def _none(value: int, none: int) -> int | None:
    return None if value == none else value


def fill(row: Any, node: Node) -> dict[str, Any]:
    """Return the columns of a fill reading from an AdvertReading or a FillRecord."""
    distance_mm = _none(row.distance_mm, records.NO_DISTANCE)
    quality = words.QUALITIES[row.quality]
    return {
        "distance_mm": distance_mm,
        "sigma_mm": row.sigma_mm,
        "quality": quality,
        "temperature_dc": _none(row.temperature_dc, records.NO_TEMPERATURE),
        "battery_pct": _none(row.battery_pct, records.NO_BATTERY),
        "event": words.EVENTS[row.event],
        "flags": row.flags,
        "backlog": row.backlog,
        "fill_pct": fill_pct(node.geometry, distance_mm, quality),
    }


def lamp(row: Any) -> dict[str, Any]:
    return {
        "level_pct": row.level_pct,
        "reason": words.REASONS[row.reason],
        "faults": row.faults,
        "event": words.EVENTS[records.lamp_event(row)],
        "outcome": words.OUTCOMES[records.lamp_outcome(row)],
        "burn_min": row.burn_min,
        "command_no": row.command_no,
    }
