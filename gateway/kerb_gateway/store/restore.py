"""Restores a backup: a file of ours, checked, made the beginning of a new gw_epoch, installed.

Rule: what the backup cannot know must not be believed: adverts wait for their node's own word,
commands that were open have no life left, numbers go on beyond what was given out since. Commands
that the present database knows are taken along: none is taken twice, none is forgotten. Nothing
is touched before the prepared file is complete; the present database is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerb_gateway.errors import CopyError
from kerb_gateway.store import backup, install
from kerb_gateway.store.database import Many, Store
from kerb_gateway.store.ledger import TAIL, Ledger
from kerb_gateway.store.migrations import APPLICATION_ID, migrate, migrations

RESTORED_BOOT = ""  # no boot has this id: the life of a command that names it is over
_JUMP_LEAST, _JUMP_MORE = 1 << 16, 1 << 20  # command numbers that a life after the backup may use
_COMMAND = (
    "command_no",
    "command_id",
    "level_pct",
    "fade_ms",
    "hold_s",
    "boot_id",
    "expires_boottime_ms",
    "state",
    "result",
)
_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Restored:
    """What a restore has done; aside: where the database that was there lies, if there was one."""

    gw_epoch: str
    before: list[str]
    aside: Path | None


def restore(database: Path, file: Path, names: dict[str, str]) -> Restored:
    """Put a backup in the place of the database; CopyError, and nothing has changed.

    The caller has the claim. names: site and gateway as the configuration has them.
    """
    install.finish(database)
    staged = install.staged(database)
    try:
        install.remove_staged(database)
        present = _facts(database) if database.is_file() else {}
        number = install.free_number(database)
        old = install.aside(database, number) if database.exists() else None
        _check_header(file)
        _bring(file, staged, database.parent)
        before = _prepare_file(staged, names, present, old)
        install.commit(database, number)
    except sqlite3.Error as error:
        raise CopyError(f"{file}: {error}") from error
    except OSError as error:
        raise CopyError(f"{error.filename or file}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            install.remove_staged(database)
    install.finish(database)
    return Restored(before[0], before[1:], old)


def _check_header(file: Path) -> None:
    with file.open("rb") as head:
        if head.read(len(_MAGIC)) != _MAGIC:
            raise CopyError(f"{file}: not a database")
    if file.with_name(file.name + "-wal").exists():
        raise CopyError(f"{file}: has a log beside it, so it is in use, or not a whole backup")


def _bring(file: Path, staged: Path, folder: Path) -> None:
    """Copy the file to where the database is, so that the last step is a rename."""
    need, free = file.stat().st_size, shutil.disk_usage(folder).free
    if need > free:
        raise CopyError(f"{folder}: {need} bytes are needed, {free} are free")
    owner = folder.stat()
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as copy, file.open("rb") as content:
        if os.geteuid() == 0:  # restored by root, it must serve the gateway's user
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        shutil.copyfileobj(content, copy, 1 << 20)


def _prepare_file(
    staged: Path, names: dict[str, str], present: dict[str, Any], old: Path | None
) -> list[str]:
    """Check and change the copy; returns the new gw_epoch and those that are over."""
    why = backup.unsound(staged)
    if why is not None:
        raise CopyError(f"the backup is damaged: {why}")
    with contextlib.closing(sqlite3.connect(staged, isolation_level=None)) as connection:
        _check_ours(connection, names)
        connection.execute("pragma journal_mode = delete")
        migrate(connection)
        connection.isolation_level = None
        epochs = prepare(connection, present, "" if old is None else old.name)
    install.sync(staged)
    return epochs


def _check_ours(connection: sqlite3.Connection, names: dict[str, str]) -> None:
    """CopyError unless it is this gateway's database, of this release or an older one."""
    tables = {row[0] for row in connection.execute("select name from sqlite_master")}
    if not {"_sqlite_migrations", "meta", "streams", "outbox"} <= tables:
        raise CopyError("the backup is not a gateway's database")
    (application_id,) = connection.execute("pragma application_id").fetchone()
    if application_id not in (0, APPLICATION_ID):  # 0: from before the header said it
        raise CopyError("the backup is another program's database")
    known = {one.name for one in migrations._migrations}
    steps = connection.execute("select name from _sqlite_migrations").fetchall()
    newer = sorted({row[0] for row in steps} - known)
    if newer:
        raise CopyError(f"the backup is of a newer release: it has taken the step {newer[-1]}")
    meta = dict(connection.execute("select key, value from meta").fetchall())
    for key, name in names.items():
        if meta.get(key, name) != name:
            raise CopyError(f"the backup is of {key} {meta[key]}, the configuration says {name}")


def _facts(database: Path) -> dict[str, Any]:
    """Return what the present database still says of itself; a damaged one may say nothing."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection,
    ):
        return facts(connection)
    return {}


def facts(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what of the database that goes is taken along."""
    rows = connection.execute("select value from meta where key = 'gw_epoch'").fetchall()
    commands = connection.execute(
        f"select {', '.join(_COMMAND)}, node_id, role "
        "from commands left join nodes using (node_no)"
    )
    return {"gw_epoch": rows[0][0] if rows else None, "commands": commands.fetchall()}


def prepare(connection: sqlite3.Connection, present: dict[str, Any], aside: str) -> list[str]:
    """Make a copy of a backup the beginning of a new gw_epoch, in one transaction.

    present: facts of the database that goes. Returns the new gw_epoch and those that are over.
    """
    execute = connection.execute
    meta = dict(execute("select key, value from meta").fetchall())
    over = [one for one in (present.get("gw_epoch"), meta.get("gw_epoch")) if one]
    over = list(dict.fromkeys(over))
    fresh = secrets.token_hex(8)
    execute("begin immediate")
    _take_along(connection, present.get("commands", []))
    (highest,) = execute("select coalesce(max(command_no), 0) from commands").fetchone()
    highest = max(highest, int(meta.get("command_floor", 0)))
    floor = highest + _JUMP_LEAST + secrets.randbelow(_JUMP_MORE)
    execute("insert or replace into meta values ('gw_epoch', ?)", [fresh])
    execute("insert or replace into meta values ('command_floor', ?)", [str(floor)])
    execute("update streams set held = 1")
    # Those too that had no stream yet.
    execute("insert or ignore into held_nodes select node_no from nodes")
    execute(
        "update commands set state = 'sent', boot_id = ? where state != 'done'", [RESTORED_BOOT]
    )
    done_no = int(meta.get("outbox_done", 0)) if "gw_epoch" in meta else None
    execute(
        "insert into restores (gw_epoch, before, aside, said, done_no) values (?,?,?,0,?)",
        [fresh, json.dumps(over), aside, done_no],
    )
    execute("commit")
    return [fresh, *over]


def _take_along(connection: sqlite3.Connection, commands: list[tuple[Any, ...]]) -> None:
    """Insert the other file's commands; node_no is a file's own, so nodes go by their node_id."""
    connection.executemany(
        "insert or ignore into nodes (node_id, role) values (?,?)",
        [row[-2:] for row in commands if row[-2] is not None],
    )
    connection.executemany(
        f"insert or replace into commands ({', '.join(_COMMAND)}, node_no) values "
        f"({'?,' * len(_COMMAND)} (select node_no from nodes where node_id = ?))",
        [row[:-1] for row in commands],
    )


async def announce(store: Store, ledger: Ledger) -> list[dict[str, Any]]:
    """Let the next commit say upstream that a backup was restored; returns what was not said."""
    rows = await store.rows("select * from restores where said = 0 order by restore_no")
    if not rows:
        return []
    over = [one for row in rows for one in json.loads(row["before"])]
    tails = await store.query(
        "select loss_no from losses where last_seq is null and closed_seq is null "
        "and reason = ? order by loss_no",
        [TAIL],
    )
    # Only those: one that was taken back is named by its `found` as it was said.
    ledger.add(
        Many(
            "update losses set gw_epoch = ? where loss_no = ?",
            [[store.gw_epoch, row[0]] for row in tails],
        )
    )
    over += [row["gw_epoch"] for row in rows[:-1]]  # restored again before it ever ran
    over = list(dict.fromkeys(over))
    last_no = ledger.last_outbox_no
    ledger.add_restored({"before": over, "known_no": last_no}, [row[0] for row in tails])
    ledger.add(("update restores set said = 1 where said = 0", []))
    return [{"gw_epoch": store.gw_epoch, "before": over, "aside": rows[-1]["aside"]}]
