"""The schema, as numbered steps that each database remembers having taken.

Rule: a step is never changed once released; a migration and the record of it share a transaction.

Tables are append-only with integer keys and no unique index over readings: that each is stored
once follows from a stream's watermark and gaps, kept in the same transaction.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database, Migrations

APPLICATION_ID = 0x4B455242  # "KERB": whose file it is, in the header of the file

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


@migrations()
def m002_outbox_by_reference(db: Database) -> None:
    """Outbox rows name what they send, a mark says how far they are done, streams count.

    The digests of a stream's last readings move from the stream, which each commit rewrites, to
    the readings, which are written once.
    """
    for name in ("outbox", "dead_letters"):
        db.table(name).add_column("kind", str, not_null_default="message")
        db.table(name).add_column("row_no", int)
    db.table("readings").add_column("digest", bytes)
    db.table("streams").add_column("stored", int, not_null_default=0)
    db.table("streams").add_column("lost", int, not_null_default=0)
    db.execute(
        "update streams set stored = "
        "(select count(*) from readings r where r.stream_no = streams.stream_no), lost = "
        "(select coalesce(sum(last_seq - first_seq + 1), 0) from losses l "
        "where l.stream_no = streams.stream_no and l.last_seq is not null)"
    )
    db.execute(
        "insert or replace into meta select 'outbox_done', coalesce(min(outbox_no) - 1, "
        "(select value from meta where key = 'outbox_last'), 0) from outbox"
    )
    db.table("streams").transform(drop={"recent"})


@migrations()
def m003_hours(db: Database) -> None:
    """How far the tables had come at each hour that the gateway has lived; losses have a time."""
    db.table("losses").add_column("boot_id", str)
    db.table("losses").add_column("wall_ms", int)
    db.table("losses").add_column("wall_quality", str)
    db.table("hours").create(
        {"hour_no": int, "lived_s": int, "reading_no": int, "outbox_no": int}, pk="hour_no"
    )


@migrations()
def m004_time(db: Database) -> None:
    """When each reading was made, the gateway's boots in their order, anchors, contacts.

    What was stored while NTP kept the clock right becomes the anchor of its boot.
    """
    for name, kind in (("t_boot_id", str), ("t_min_ms", int), ("t_ms", int), ("t_max_ms", int)):
        db.table("readings").add_column(name, kind)
    db.table("gateway_boots").create(
        {"gateway_boot_no": int, "boot_id": str, "last_ms": int}, pk="gateway_boot_no"
    )
    db.table("clock_anchors").create(
        {
            "anchor_no": int,
            "gateway_boot_no": int,
            "boottime_ms": int,
            "wall_ms": int,
            "uncertainty_ms": int,
        },
        pk="anchor_no",
    )
    db.table("contacts").create(
        {
            "stream_no": int,
            "boot_id": str,
            "node_boot_no": int,
            "uptime_s": int,
            "last_seq": int,
            "asked_ms": int,
            "answered_ms": int,
        }
    )
    db.execute(
        "insert into gateway_boots (boot_id, last_ms) select boot_id, max(boottime_ms) "
        "from readings where boot_id is not null group by boot_id order by min(reading_no)"
    )
    db.execute(
        "insert into clock_anchors (gateway_boot_no, boottime_ms, wall_ms, uncertainty_ms) "
        "select b.gateway_boot_no, r.boottime_ms, r.wall_ms, 2000 from readings r "
        "join gateway_boots b using (boot_id) where r.reading_no in (select max(reading_no) "
        "from readings where wall_quality = 'ntp' group by boot_id) order by b.gateway_boot_no"
    )


@migrations()
def m005_leases(db: Database) -> None:
    """Generations of claims; numbers that another gateway of the group has delivered."""
    db.table("generations").create({"node_id": str, "generation": int}, pk="node_id")
    db.table("streams").add_column("elsewhere", int, not_null_default=0)


@migrations()
def m006_operator(db: Database) -> None:
    """What an operator did about dead letters, asked replays, tails that were closed, silences."""
    db.table("losses").add_column("closed_seq", int)
    db.table("ended_letters").create(
        {
            "outbox_no": int,
            "ended": str,
            "new_no": int,
            "kind": str,
            "topic": str,
            "reason": str,
            "node": str,
            "epoch": int,
            "seq": int,
            "who": str,
            "why": str,
            "boot_id": str,
            "boottime_ms": int,
            "wall_ms": int,
            "wall_quality": str,
        },
        pk="outbox_no",
    )
    db.table("replays").create(
        {
            "replay_no": int,
            "command_id": str,
            "first_no": int,
            "last_no": int,
            "until_no": int,
            "next_no": int,
            "published": int,
            "refused": int,
            "letters": int,
            "not_kept": int,
            "not_kept_ranges": str,
            "state": str,
        },
        pk="replay_no",
    )
    db.table("replays").create_index(["command_id"], unique=True)
    db.table("silences").create({"stream_no": int, "silent_s": int}, pk="stream_no")


@migrations()
def m007_restore(db: Database) -> None:
    """Whose file it is; counters in doubt after a restore; restores; letters that had to go."""
    db.execute(f"pragma application_id = {APPLICATION_ID}")
    db.table("streams").add_column("held", int, not_null_default=0)
    db.table("held_nodes").create({"node_no": int}, pk="node_no")
    db.table("streams").add_column("given_up", int, not_null_default=0)
    db.table("restores").create(
        {"restore_no": int, "gw_epoch": str, "before": str, "aside": str, "said": int},
        pk="restore_no",
    )


@migrations()
def m008_told_apart(db: Database) -> None:
    """The gw_epoch that a loss is said with; what was delivered before a restore; hours of losses.

    What an hour or a restore of before does not know stays null.
    """
    db.table("losses").add_column("gw_epoch", str)
    db.execute("update losses set gw_epoch = (select value from meta where key = 'gw_epoch')")
    db.table("restores").add_column("done_no", int)
    db.table("hours").add_column("loss_no", int)


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
