"""A group without its broker, for tests of one gateway's part in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kerb_gateway.group import Group, Terms
from kerb_gateway.model import Node
from kerb_gateway.uplink.topics import Topics
from parts import Parts, log

LEASE_S = 1.0


@dataclass
class Silent:
    """A broker that takes everything and answers nothing."""

    acked: list[Any] = field(default_factory=list)

    def retain(self, topic: str, payload: bytes, expiry_s: int | None = None) -> None:
        pass

    def ack(self, incoming: Any) -> None:
        self.acked.append(incoming)


@dataclass
class Message:
    """What the uplink hands over."""

    topic: str
    payload: bytes = b'{"command_id": "c", "level_pct": 1, "hold_s": 1, "ttl_s": 1}'
    retained: bool = False


def group_of(
    parts: Parts, broker: Silent, nodes: list[Node] | None = None, log: Any = log
) -> Group:
    return Group(
        Terms(LEASE_S, 60, False), "gw1", nodes or parts.nodes, {}, store=parts.store,
        ledger=parts.ledger, ingest=parts.ingest, broker=broker,
        topics=Topics("north", "gw1", grouped=True), clock=parts.clock, log=log,
    )  # fmt: skip
