"""Kerbstone's own JSON: every record with identity, kind, value, unit in the name, and time.

Rule: a consumer can insert with ON CONFLICT DO NOTHING on `id`; null means unknown, never zero.
docs/mqtt-topics.md has the tables.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kerb_gateway.model import Loss, Reading
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

_encode = msgspec.json.Encoder().encode


class NativePayloads:
    """Makes (topic, payload) of readings, losses and results."""

    def __init__(self, topics: Topics, gw_epoch: str) -> None:
        self._topics = topics
        self._gw_epoch = gw_epoch

    def reading(self, reading: Reading, outbox_no: int) -> tuple[str, bytes]:
        stream, fields = reading.stream, dict(reading.fields)
        tenths = fields.get("temperature_dc")
        fields["temperature_c"] = None if tenths is None else tenths / 10
        node = stream.node.node_id
        message: dict[str, Any] = {
            "id": f"{node}/{stream.epoch}/{reading.seq}",
            "node": node,
            "epoch": stream.epoch,
            "seq": reading.seq,
            "kind": reading.kind,
            "gw_epoch": self._gw_epoch,
            "outbox_no": outbox_no,
        }
        for name in (_FILL if reading.kind == "fill" else _LAMP) + _COMMON:
            message[name] = fields.get(name)
        message["time"] = {
            "boot_id": fields["boot_id"],
            "boottime_ms": fields["boottime_ms"],
            "wall_ms": fields["wall_ms"],
            "quality": fields["wall_quality"],
        }
        return self._topics.of(node, READING), _encode(message)

    def loss(self, loss: Loss) -> tuple[str, bytes]:
        node, epoch = loss.stream.node.node_id, loss.stream.epoch
        last = "" if loss.last_seq is None else loss.last_seq
        return self._topics.of(node, EVENT), _encode(
            {
                "kind": "loss",
                "id": f"loss/{node}/{epoch}/{loss.first_seq}-{last}",
                "node": node,
                "epoch": epoch,
                "first_seq": loss.first_seq,
                "last_seq": loss.last_seq,
                "reason": loss.reason,
            }
        )

    def result(self, node_id: str, result: dict[str, Any]) -> tuple[str, bytes]:
        return self._topics.of(node_id, RESULT), _encode({"node": node_id} | result)
