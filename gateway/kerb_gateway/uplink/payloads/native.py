"""Kerbstone's own JSON: every record with identity, kind, value, unit in the name, and time.

Rule: a consumer can insert with ON CONFLICT DO NOTHING on `id`; null means unknown, never zero.
docs/mqtt-topics.md has the tables.
"""

from __future__ import annotations

from typing import Any

import msgspec
from kerb_wire.words import fault_names

from kerb_gateway.model import Origin
from kerb_gateway.uplink.payloads.times import UNKNOWN, time_of
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

GATEWAY = "gateway"  # in the place of a node: what concerns no single one
_encode = msgspec.json.Encoder().encode


class NativePayloads:
    """Makes (topic, payload) of readings, losses, results and alarms."""

    def __init__(self, topics: Topics, gw_epoch: str) -> None:
        self._topics = topics
        self._gw_epoch = gw_epoch
        self.offsets = UNKNOWN  # set once the store has loaded what is known of wall time

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
        message["time"] = time_of(fields, self.offsets)
        return self._topics.of(node, READING), _encode(message)

    def loss(self, origin: Origin, fields: dict[str, Any]) -> tuple[str, bytes]:
        last = fields["last_seq"]
        mark = fields["loss_no"] if last is None else fields.get("mark")
        node, first = origin.node_id, fields["first_seq"]
        return self._topics.of(node, EVENT), _encode(
            {
                "kind": "loss",
                "id": self._loss_id(origin, first, last, mark, fields.get("gw_epoch")),
                "node": node,
                "epoch": origin.epoch,
                "first_seq": first,
                "last_seq": last,
                "reason": fields["reason"],
            }
        )

    def _loss_id(
        self,
        origin: Origin,
        first: int,
        last: int | None,
        mark: int | None,
        gw_epoch: str | None = None,
    ) -> str:
        """Return a loss's id; one that can be declared again for the same numbers has a mark."""
        id_ = f"loss/{origin.node_id}/{origin.epoch}/{first}-{'' if last is None else last}"
        return id_ if mark is None else f"{id_}/{gw_epoch or self._gw_epoch}/{mark}"

    def numbered(self, payload: bytes, outbox_no: int) -> bytes:
        return _with(payload, {"gw_epoch": self._gw_epoch, "outbox_no": outbox_no})

    def of_epoch(self, payload: bytes, gw_epoch: str) -> bytes:
        return _with(payload, {"gw_epoch": gw_epoch})

    def replayed(self, payload: bytes) -> bytes:
        return _with(payload, {"replayed": True})

    def found(self, origin: Origin, fields: dict[str, Any]) -> tuple[str, bytes]:
        node, first, last = origin.node_id, fields["first_seq"], fields["last_seq"]
        declared_last = last if fields["reason"] == "refused" else None
        of = self._loss_id(origin, first, declared_last, fields["mark"], fields.get("gw_epoch"))
        return self._topics.of(node, EVENT), _encode(
            {
                "kind": "found",
                "id": f"found/{of}",
                "of": of,
                "node": node,
                "epoch": origin.epoch,
                "first_seq": first,
                "last_seq": last,
                "reason": fields["reason"],
            }
        )

    def dropped(
        self, reading: tuple[Origin, int] | None, fields: dict[str, Any]
    ) -> tuple[str, bytes]:
        origin, seq = (None, None) if reading is None else reading
        node = "gateway" if origin is None else origin.node_id
        return self._topics.of(node, EVENT), _encode(
            {
                "kind": "dropped",
                "id": f"dropped/{self._gw_epoch}/{fields['letter_no']}",
                "node": node,
                "epoch": None if origin is None else origin.epoch,
                "seq": seq,
            }
            | fields
        )

    def result(self, node_id: str, result: dict[str, Any]) -> tuple[str, bytes]:
        return self._topics.of(node_id, RESULT), _encode({"node": node_id} | result)

    def alarm(self, node_id: str, alarm: dict[str, Any]) -> tuple[str, bytes]:
        return self._topics.of(node_id, EVENT), _encode({"kind": "alarm", "node": node_id} | alarm)

    def restored(self, fields: dict[str, Any]) -> tuple[str, bytes]:
        base = {"kind": "restored", "id": f"restored/{self._gw_epoch}", "node": GATEWAY}
        return self._topics.of(GATEWAY, EVENT), _encode(
            base | {"gw_epoch": self._gw_epoch} | fields
        )

    def anchor(self, anchor: dict[str, Any]) -> tuple[str, bytes]:
        base = {"kind": "anchor", "node": GATEWAY, "gw_epoch": self._gw_epoch}
        return self._topics.of(GATEWAY, EVENT), _encode(base | anchor)


def _with(payload: bytes, more: dict[str, Any]) -> bytes:
    try:
        return _encode(msgspec.json.decode(payload, type=dict[str, Any]) | more)
    except msgspec.MsgspecError:  # a damaged database: it goes as it is
        return payload
