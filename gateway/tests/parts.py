"""Real parts put together for the gateway's tests: a store on disk, keys, adverts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kerb_gateway.clock import Clock, Moment, SystemClock
from kerb_gateway.crypto import new_ecb
from kerb_gateway.ingest import Ingest
from kerb_gateway.model import Heard, Node, Stream
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.outbox import Outbox, Outgoing
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics
from kerb_wire import advert, bthome, keys, records
from kerb_wire.provisioning import address_of
from kerb_wire.words import FLAG_CONNECTABLE

KEY = bytes(range(16))
NODE_ID = "a4cf12000001"
LAMP_ID = "a4cf12000002"
EPOCH = 77
TOPICS = Topics("north", "gw1")


def log(event: str, **fields: Any) -> None:
    """Say nothing."""


class Parts:
    """A store, its ledger and an ingest over two nodes."""

    @classmethod
    async def open(cls, path: Path, clock: Clock | None = None, **more: Any) -> Parts:
        """more: further arguments of Ingest."""
        parts = cls()
        parts.store = Store(path)
        await parts.store.open()
        for node_id, role in ((NODE_ID, "bin"), (LAMP_ID, "lamp")):
            await parts.store.write(
                [("insert or ignore into nodes (node_id, role) values (?,?)", [node_id, role])]
            )
        parts.nodes = [
            Node(1, NODE_ID, "bin", KEY),
            Node(2, LAMP_ID, "lamp", KEY, bus="street", unit=1),
        ]
        payloads = NativePayloads(TOPICS, parts.store.gw_epoch)
        parts.ledger = await Ledger.load(parts.store, payloads, parts.nodes, log)
        payloads.offsets = parts.ledger.anchors
        parts.clock = clock or SystemClock()
        parts.ingest = Ingest(
            parts.ledger, parts.nodes, parts.clock, log,
            commit_interval_s=60, commit_rows=500, **more,
        )  # fmt: skip
        return parts

    async def again(self) -> Parts:
        """What a gateway that starts now would know."""
        path = self.store._path
        await self.store.close()
        return await Parts.open(path)

    async def stream(self, last_seq: int = 0) -> Stream:
        return await self.ingest.epoch(self.nodes[0], EPOCH, last_seq)

    async def column(self, statement: str) -> list[Any]:
        return [row[0] for row in await self.store.query(statement)]

    async def topics(self) -> list[str]:
        return [one.topic for one in await self.outgoing()]

    async def outgoing(self) -> list[Outgoing]:
        """What the publisher would be given from the very first row on."""
        payloads = NativePayloads(TOPICS, self.store.gw_epoch)
        payloads.offsets = self.ledger.anchors
        outbox = Outbox(self.store, payloads)
        return await outbox.after(0, 100000)

    async def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(one.payload) for one in await self.outgoing()]


class HandClock:
    """A clock that a test turns."""

    def __init__(self, boottime_s: float = 1000.0) -> None:
        self.boottime_s = boottime_s

    def boottime_ms(self) -> int:
        return int(self.boottime_s * 1000)

    def now(self) -> Moment:
        return Moment("a boot", self.boottime_ms(), 0, "none")


def record(seq: int, distance_mm: int = 1000, flags: int = 1) -> bytes:
    """Return a packed fill record."""
    return records.pack_fill(1, seq, seq * 10, distance_mm, 2, 0, 200, 90, 0, 7, 7, flags, 0)


def heard(
    seq: int,
    distance_mm: int = 1000,
    *,
    key: bytes = KEY,
    epoch: int = EPOCH,
    flags: int = FLAG_CONNECTABLE,
) -> Heard:
    """Return the advert of record(seq) as an adapter would hear it."""
    ecb = new_ecb(keys.advert_key(new_ecb, key, epoch))
    address = address_of(bytes.fromhex(NODE_ID))
    objects = advert.objects_of(records.unpack(record(seq, distance_mm, flags)), EPOCH)
    text = ":".join(f"{octet:02X}" for octet in address)
    return Heard(
        text, bthome.seal(ecb, address, seq, objects), -60, "hci0", SystemClock().boottime_ms()
    )
