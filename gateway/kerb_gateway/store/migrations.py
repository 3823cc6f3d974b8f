"""The schema, as numbered steps that each database remembers having taken.

Rule: a step is never changed once released; a migration and the record of it share a transaction.

Tables are append-only with integer keys and no unique index over readings: that each is stored
once follows from a stream's watermark and gaps, kept in the same transaction.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database, Migrations

migrations = Migrations("kerb_gateway")


@migrations()
def m001_initial(db: Database) -> None:
    """The tables of the first release."""
    db.table("meta").create({"key": str, "value": str}, pk="key")
    db.table("nodes").create({"node_no": int, "node_id": str, "role": str}, pk="node_no")
    db.table("nodes").create_index(["node_id"], unique=True)
    db.table("streams").create(
        {"stream_no": int, "node_no": int, "epoch": int, "last_seq": int, "recent": bytes},
        pk="stream_no",
    )
    _readings(db)
    db.table("gaps").create(
        {"gap_no": int, "stream_no": int, "first_seq": int, "last_seq": int}, pk="gap_no"
    )
    db.table("losses").create(
        {
            "loss_no": int,
            "stream_no": int,
            "first_seq": int,
            "last_seq": int,
            "reason": str,
            "boottime_ms": int,
        },
        pk="loss_no",
    )
    db.table("outbox").create({"outbox_no": int, "topic": str, "payload": bytes}, pk="outbox_no")
    db.table("dead_letters").create(
        {"outbox_no": int, "topic": str, "payload": bytes, "reason": str}, pk="outbox_no"
    )
    _commands(db)
    db.table("counters").create(
        {"name": str, "node_no": int, "value": int}, pk=("name", "node_no")
    )


def _readings(db: Database) -> None:
    db.table("readings").create(
        {
            "reading_no": int,
            "stream_no": int,
            "seq": int,
            "kind": str,
            "record": bytes,
            "distance_mm": int,
            "sigma_mm": int,
            "quality": str,
            "temperature_dc": int,
            "battery_pct": int,
            "event": str,
            "flags": int,
            "backlog": int,
            "fill_pct": float,
            "level_pct": int,
            "reason": str,
            "faults": int,
            "outcome": str,
            "burn_min": int,
            "command_no": int,
            "boot_no": int,
            "uptime_s": int,
            "via": str,
            "auth": str,
            "boot_id": str,
            "boottime_ms": int,
            "wall_ms": int,
            "wall_quality": str,
        },
        pk="reading_no",
    )


def _commands(db: Database) -> None:
    db.table("commands").create(
        {
            "command_no": int,
            "command_id": str,
            "node_no": int,
            "level_pct": int,
            "fade_ms": int,
            "hold_s": int,
            "boot_id": str,
            "expires_boottime_ms": int,
            "state": str,
            "result": str,
        },
        pk="command_no",
    )
    db.table("commands").create_index(["command_id"], unique=True)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to this release's schema."""
    migrations.apply(Database(connection))
