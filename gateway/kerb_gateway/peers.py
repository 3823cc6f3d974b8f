"""What the gateways of a group say to each other: claims of nodes, and how far a node has come.

Rule: a message is read strictly, and one that is not as documented (docs/mqtt-topics.md) is a
ValueError; nothing else of a peer is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

GENERATION_MAX = 2**53  # where the doubles of other JSON readers begin to skip numbers
_SEQ_MAX = 2**32 - 1
_LEASE_MAX_MS = 86_400_000
_RUN_MAX = 64
OLDER_MAX = 7  # epochs of a node before its newest that its owner still speaks of


@dataclass(frozen=True)
class Claims:
    """All nodes that a gateway claims, each with the generation of its claim.

    run and number: which message of which start of that gateway this is.
    """

    run: str
    number: int
    lease_ms: int
    generations: dict[str, int]


@dataclass(frozen=True)
class Progress:
    """What a node's owner says of it: up to delivered_seq everything is upstream or declared.

    older: (epoch, delivered_seq) of the epochs before, oldest first.
    """

    node: str
    generation: int
    epoch: int
    last_seq: int
    delivered_seq: int
    older: tuple[tuple[int, int], ...] = ()


def pack_claims(claims: Claims) -> bytes:
    """Return the JSON of a message of claims."""
    return msgspec.json.encode(
        {
            "run": claims.run,
            "number": claims.number,
            "lease_ms": claims.lease_ms,
            "nodes": claims.generations,
        }
    )


def unpack_claims(payload: bytes) -> Claims:
    """Return the claims of a message; ValueError if it is none."""
    table = _table(payload, {"run", "number", "lease_ms", "nodes"})
    run, nodes = table["run"], table["nodes"]
    if not isinstance(run, str) or not 1 <= len(run) <= _RUN_MAX or not isinstance(nodes, dict):
        raise ValueError("not a message of claims")
    generations = {
        node: _whole(generation, 1, GENERATION_MAX) for node, generation in nodes.items()
    }
    number = _whole(table["number"], 1, GENERATION_MAX)
    return Claims(run, number, _whole(table["lease_ms"], 1, _LEASE_MAX_MS), generations)


def pack_progress(progress: Progress) -> bytes:
    """Return the JSON of a node's progress; the node is in the topic."""
    return msgspec.json.encode(
        {
            "generation": progress.generation,
            "epoch": progress.epoch,
            "last_seq": progress.last_seq,
            "delivered_seq": progress.delivered_seq,
            "older": progress.older,
        }
    )


def unpack_progress(node: str, payload: bytes) -> Progress:
    """Return what an owner says of `node`; ValueError if it says nothing that can be."""
    table = _table(payload, {"generation", "epoch", "last_seq", "delivered_seq"})
    progress = Progress(
        node,
        _whole(table["generation"], 0, GENERATION_MAX),
        _whole(table["epoch"], 0, _SEQ_MAX),
        _whole(table["last_seq"], 0, _SEQ_MAX),
        _whole(table["delivered_seq"], 0, _SEQ_MAX),
        _older(table.get("older", [])),
    )
    if progress.delivered_seq > progress.last_seq:
        raise ValueError("more delivered than there is")
    return progress


def _older(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) > OLDER_MAX:
        raise ValueError(f"older: not a list of at most {OLDER_MAX} epochs")
    if any(not isinstance(one, list) or len(one) != 2 for one in value):
        raise ValueError("older: not pairs of epoch and number")
    return tuple((_whole(epoch, 0, _SEQ_MAX), _whole(seq, 0, _SEQ_MAX)) for epoch, seq in value)


def _table(payload: bytes, names: set[str]) -> dict[str, Any]:
    try:
        table = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(table, dict) or not names <= table.keys():
        raise ValueError(f"not an object with {', '.join(sorted(names))}")
    return table


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{value!r}: not a whole number from {low} to {high}")
    return value
