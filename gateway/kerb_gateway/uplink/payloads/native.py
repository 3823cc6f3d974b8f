"""Kerbstone's own JSON: every record with identity, kind, value, unit in the name, and time.

Rule: a consumer can insert with ON CONFLICT DO NOTHING on `id`; null means unknown, never zero.
docs/mqtt-topics.md has the tables.
"""

from __future__ import annotations

from typing import Any

import msgspec
from kerb_wire.words import fault_names

from kerb_gateway.model import Origin, Reading
from kerb_gateway.uplink.payloads.times import UNKNOWN, Time, time_of
from kerb_gateway.uplink.topics import EVENT, READING, RESULT, Topics

GATEWAY = "gateway"  # in the place of a node: what concerns no single one
_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct, gc=False):
    """A reading upstream begins with these names, in this order."""

    id: str
    node: str
    epoch: int
    seq: int
    kind: str
    gw_epoch: str
    outbox_no: int


class _Fill(_Message, gc=False):
    """A bin's reading upstream."""

    distance_mm: int | None
    sigma_mm: int | None
    quality: str | None
    temperature_c: float | None
    battery_pct: int | None
    fill_pct: float | None
    event: str | None
    flags: int | None
    backlog: int | None
    boot_no: int | None
    uptime_s: int | None
    via: str | None
    auth: str | None
    time: Time


class _Lamp(_Message, gc=False):
    """A lamp's reading upstream."""

    level_pct: int | None
    reason: str | None
    faults: int | None
    outcome: str | None
    burn_min: int | None
    command_no: int | None
    event: str | None
    boot_no: int | None
    uptime_s: int | None
    via: str | None
    auth: str | None
    fault_names: list[str]
    time: Time


class NativePayloads:
    """Makes (topic, payload) of readings, losses, results and alarms."""

    def __init__(self, topics: Topics, gw_epoch: str) -> None:
        self._topics = topics
        self._gw_epoch = gw_epoch
        self.offsets = UNKNOWN  # set once the store has loaded what is known of wall time

    def reading(self, origin: Origin, reading: Reading, outbox_no: int) -> tuple[str, bytes]:
        make = self._fill if reading.kind == "fill" else self._lamp
        node = origin.node_id
        id_ = f"{node}/{origin.epoch}/{reading.seq}"
        return self._topics.of(node, READING), _encode(make(id_, origin, reading, outbox_no))

    def _fill(self, id_: str, origin: Origin, reading: Reading, outbox_no: int) -> _Fill:
        tenths = reading.temperature_dc
        return _Fill(  # by position: by name it takes longer than the rest of the way out
            id_,
            origin.node_id,
            origin.epoch,
            reading.seq,
            reading.kind,
            self._gw_epoch,
            outbox_no,
            reading.distance_mm,
            reading.sigma_mm,
            reading.quality,
            None if tenths is None else tenths / 10,
            reading.battery_pct,
            reading.fill_pct,
            reading.event,
            reading.flags,
            reading.backlog,
            reading.boot_no,
            reading.uptime_s,
            reading.via,
            reading.auth,
            time_of(reading, self.offsets),
        )

    def _lamp(self, id_: str, origin: Origin, reading: Reading, outbox_no: int) -> _Lamp:
        return _Lamp(
            id_,
            origin.node_id,
            origin.epoch,
            reading.seq,
            reading.kind,
            self._gw_epoch,
            outbox_no,
            reading.level_pct,
            reading.reason,
            reading.faults,
            reading.outcome,
            reading.burn_min,
            reading.command_no,
            reading.event,
            reading.boot_no,
            reading.uptime_s,
            reading.via,
            reading.auth,
            fault_names(reading.faults or 0),
            time_of(reading, self.offsets),
        )

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
