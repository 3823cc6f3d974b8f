"""The generations of claims, kept so that a restarted gateway never claims with an old one.

Rule: a generation is stored before the claim that uses it is published; it only rises.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerb_gateway.store.database import Many, Store

_SAVE = (
    "insert into generations (node_id, generation) values (?,?) on conflict (node_id) "
    "do update set generation = max(generation, excluded.generation)"
)


async def load(store: Store) -> dict[str, int]:
    """Return the highest generation known of each node."""
    return dict(await store.query("select node_id, generation from generations"))


async def forgetful(store: Store) -> bool:
    """Tell whether a restore may have made the database forget generations that were used."""
    return bool(await store.query("select 1 from restores limit 1"))


async def save(store: Store, generations: Mapping[str, int]) -> None:
    """Store generations; on return they are durable. StoreError else."""
    if generations:
        await store.write([Many(_SAVE, [list(pair) for pair in generations.items()])])
