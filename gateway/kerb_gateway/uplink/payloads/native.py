"""Kerbstone's own JSON: every record with identity, kind, value, unit in the name, and time.

Rule: a consumer can insert with ON CONFLICT DO NOTHING on `id`; null means unknown, never zero.
docs/mqtt-topics.md has the tables.
"""

from __future__ import annotations

from typing import Any

import msgspec
from kerb_wire.words import fault_names

from kerb_gateway.model import Origin
from kerb_gateway.uplink.topics import EVENT, READING, RESULT, Topics

_FILL = (
    "distance_mm",
    "sigma_mm",
    "quality",
    "temperature_c",
    "battery_pct",
    "fill_pct",
    "event",
    "flags",
    "backlog",
)
_LAMP = ("level_pct", "reason", "faults", "outcome", "burn_min", "command_no", "event")
_COMMON = ("boot_no", "uptime_s", "via", "auth")
_FILL_NAMES, _LAMP_NAMES = _FILL + _COMMON, _LAMP + _COMMON

_encode = msgspec.json.Encoder().encode


class NativePayloads:
    """Makes (topic, payload) of readings, losses, results and alarms."""

    def __init__(self, topics: Topics, gw_epoch: str) -> None:
        self._topics = topics
        self._gw_epoch = gw_epoch

    def reading(self, origin: Origin, fields: dict[str, Any], outbox_no: int) -> tuple[str, bytes]:
        node, seq, kind = origin.node_id, fields["seq"], fields["kind"]
        message: dict[str, Any] = {
            "id": f"{node}/{origin.epoch}/{seq}",
            "node": node,
            "epoch": origin.epoch,
            "seq": seq,
            "kind": kind,
            "gw_epoch": self._gw_epoch,
            "outbox_no": outbox_no,
        }
        names = _FILL_NAMES if kind == "fill" else _LAMP_NAMES
        message.update(zip(names, map(fields.get, names)))
        if kind == "fill":
            tenths = fields["temperature_dc"]
            message["temperature_c"] = None if tenths is None else tenths / 10
        else:
            message["fault_names"] = fault_names(fields["faults"])
        message["time"] = {
            "boot_id": fields["boot_id"],
            "boottime_ms": fields["boottime_ms"],
            "wall_ms": fields["wall_ms"],
            "quality": fields["wall_quality"],
        }
        return self._topics.of(node, READING), _encode(message)

    def loss(self, origin: Origin, fields: dict[str, Any]) -> tuple[str, bytes]:
        node, first, last = origin.node_id, fields["first_seq"], fields["last_seq"]
        return self._topics.of(node, EVENT), _encode(
            {
                "kind": "loss",
                "id": f"loss/{node}/{origin.epoch}/{first}-{'' if last is None else last}",
                "node": node,
                "epoch": origin.epoch,
                "first_seq": first,
                "last_seq": last,
                "reason": fields["reason"],
            }
        )

    def result(self, node_id: str, result: dict[str, Any]) -> tuple[str, bytes]:
        return self._topics.of(node_id, RESULT), _encode({"node": node_id} | result)

    def alarm(self, node_id: str, alarm: dict[str, Any]) -> tuple[str, bytes]:
        return self._topics.of(node_id, EVENT), _encode({"kind": "alarm", "node": node_id} | alarm)
