"""The independent subscriber's file: what really came out of the broker.

Rule: messages are taken as they arrived, duplicates included; they are grouped by the identity
inside their payload, not by anything that a sender counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerb_check import jsonl
from kerb_check.model import OPEN_END, Dropped, Found, Identity, Loss, Reading, SourceError


@dataclass
class Delivered:
    """Messages by kind, in order of arrival."""

    readings: list[Reading] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    availability: list[str] = field(default_factory=list)
    placed: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # each with its gateway
    over: set[tuple[str, str]] = field(default_factory=set)  # (gateway, gw_epoch) before a restore


def read(path: Path) -> Delivered:
    """Return what subscriber.jsonl holds; SourceError if it is damaged or cut short."""
    delivered = Delivered()
    for row in jsonl.read(path, closing="end"):
        if "topic" not in row:
            continue
        try:
            _sort(delivered, row)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SourceError(
                f"{path.name}: a message on {row['topic']} is not as documented: {error!r}"
            ) from error
    return delivered


def _sort(delivered: Delivered, row: dict[str, Any]) -> None:
    segments = row["topic"].split("/")
    leaf, gateway = segments[-1], segments[3]
    payload = row["payload"]
    if leaf in ("reading", "batch", "event", "result"):
        messages = payload if leaf == "batch" else [payload]
        delivered.placed += [(gateway, one) for one in messages]
    if leaf in ("reading", "batch"):
        for one in payload if leaf == "batch" else [payload]:
            identity = Identity(one["node"], one["epoch"], one["seq"])
            extra = {"t_s": row["t_s"], "topic": row["topic"], "gateway": gateway}
            delivered.readings.append(Reading(identity, one, extra))
    elif leaf == "event" and payload.get("kind") == "loss":
        last = payload["last_seq"]
        delivered.losses.append(
            Loss(
                payload["node"],
                payload["epoch"],
                payload["first_seq"],
                OPEN_END if last is None else last,
                payload["reason"],
                payload.get("id", ""),
                gateway,
            )
        )
    elif leaf == "event" and payload.get("kind") == "found":
        names = ("of", "node", "epoch", "first_seq", "last_seq")
        delivered.found.append(Found(*(payload[name] for name in names)))
    elif leaf == "event" and payload.get("kind") == "restored":
        delivered.over |= {(gateway, one) for one in payload["before"]}
    elif leaf == "event" and payload.get("kind") == "dropped" and payload["seq"] is not None:
        identity = Identity(payload["node"], payload["epoch"], payload["seq"])
        delivered.dropped.append(Dropped(identity))
    elif leaf == "result":
        delivered.results.append({"t_s": row["t_s"]} | payload)
    elif leaf == "availability":
        delivered.availability.append(str(row["text"] or payload))
