"""The gateway's database: one SQLite file in memory that outlives every process.

Rule: what was committed stays, what was not is rolled back, and nobody writes beside the gateway;
each row that a transaction adds or removes is shown to the judge when the COMMIT stands. Torn
files are not simulated here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kerb_gateway.store import restore

from kerb_tools.simulate.timeline import Crash

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

CRASH_BEFORE = "crash before the commit"
CRASH_AFTER = "crash after the commit"
ERROR_BEFORE = "I/O error before the commit"
ERROR_AFTER = "I/O error after the commit"
_AT_COMMIT = 16  # on a full disk one try in so many gets as far as its COMMIT
_BALLAST_S = 900.0  # how long the room lasts that a ballast frees

# What the judge is shown: (when, table, condition, columns).
_SEEN = (
    ("insert", "streams", "", "new.stream_no, new.node_no, new.epoch"),
    ("insert", "readings", "", "new.reading_no, new.stream_no, new.seq, new.via"),
    ("delete", "readings", "", "old.reading_no, old.stream_no, old.seq"),
    (
        "insert",
        "losses",
        "",
        "new.loss_no, new.stream_no, new.first_seq, new.last_seq, new.reason",
    ),
    ("insert", "outbox", "", "new.outbox_no, new.kind, new.row_no, new.topic, new.payload"),
    ("delete", "outbox", "", "old.outbox_no"),
    ("insert", "dead_letters", "", "new.outbox_no, new.payload"),
    (
        "insert",
        "commands",
        "",
        "new.command_no, new.command_id, (select node_id from nodes where node_no = new.node_no), "
        "new.level_pct, new.fade_ms, new.hold_s, new.boot_id, new.expires_boottime_ms",
    ),
    ("insert", "meta", "when new.key = 'outbox_done'", "new.value"),
    ("update", "meta", "when new.key = 'outbox_done'", "new.value"),
)


class Disk(sqlite3.Connection):
    """The connection itself: made once, "opened" by each process anew."""

    _house: House

    def set_up(self, house: House) -> None:
        """Belong to a gateway."""
        self._house = house
        self._seen: list[tuple[Any, ...]] = []
        self._fault = ""
        self._blind = False
        self.broken = False  # an error was reported: the process must end
        self._changes = 0
        self._tries = 0
        self.full_until_s = 0.0
        self._room_until_s = 0.0
        self.ballast = True
        self.create_function("kerb_seen", -1, self._see)

    def _see(self, *row: Any) -> None:
        if not self._blind:
            self._seen.append(row)

    def watch(self) -> None:
        """See every row that the gateway's tables get or lose."""
        for when, table, condition, columns in _SEEN:
            super().execute(
                f"create temp trigger if not exists seen_{when}_{table} after {when} on "
                f"main.{table} {condition} begin "
                f"select kerb_seen('{when} {table}', {columns}); end"
            )

    def reopen(self, *_: Any, **__: Any) -> Disk:
        """Be opened by a new process: an unfinished transaction never was."""
        self.close()
        self.broken = False
        return self

    def close(self) -> None:
        """Forget what was not committed; the file stays."""
        self._seen.clear()
        self._fault = ""
        if self.in_transaction:
            super().execute("rollback")

    def copy(self) -> sqlite3.Connection:
        """Return a backup."""
        copy = sqlite3.connect(":memory:", isolation_level=None)
        self.backup(copy)
        return copy

    def restore(self, copy: sqlite3.Connection) -> None:
        """Be what a backup was, made the beginning of a new gw_epoch by the gateway's own code."""
        self.close()
        present = restore.facts(self)
        copy.backup(self)
        self._blind = True  # what is taken along was seen before; a restore meets no fault
        restore.prepare(self, present, "")
        self._blind = False

    @property
    def is_full(self) -> bool:
        """Whether there is no room now."""
        now_s = self._house.timeline.now_s
        return not self._blind and self._room_until_s < now_s < self.full_until_s

    def arm(self, fault: str) -> None:
        """Let the next COMMIT meet this fault."""
        self._fault = fault

    def drop_ballast(self) -> bool:
        """Free some room; tell whether there was anything to free."""
        there, self.ballast = self.ballast, False
        if there:
            self._room_until_s = self._house.timeline.now_s + _BALLAST_S
        return there

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:  # type: ignore[override]
        """Run a statement; a COMMIT of anything may fail or be the process's last word."""
        if sql == "commit" and not self._blind and self.total_changes > self._changes:
            return self._commit()
        if sql.startswith("begin"):
            self._changes = self.total_changes
        if sql == "rollback":
            self._seen.clear()
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
        """Insert rows; on a full disk most tries fail here already, the others at the COMMIT."""
        if self.is_full:
            self._tries += 1
            if self._tries % _AT_COMMIT:
                raise _error(sqlite3.SQLITE_FULL, "database or disk is full")
        return super().executemany(sql, parameters)

    def _commit(self) -> sqlite3.Cursor:
        if self.broken:
            self._house.judge.found("wrote on after an I/O error", "disk")
        fault, self._fault = self._fault, ""
        if fault:
            self._house.trace.note(fault)
        if fault == CRASH_BEFORE:
            raise Crash
        if fault == ERROR_BEFORE:
            self.broken = True
            raise _error(sqlite3.SQLITE_IOERR, "disk I/O error")
        if self.is_full:
            raise _error(sqlite3.SQLITE_FULL, "database or disk is full")
        cursor = super().execute("commit")
        seen, self._seen = self._seen, []
        self._house.judge.committed(seen)
        if fault == CRASH_AFTER:
            raise Crash
        if fault == ERROR_AFTER:
            self.broken = True
            raise _error(sqlite3.SQLITE_IOERR, "disk I/O error")
        return cursor


def _error(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def new_disk(house: House) -> Disk:
    """Return an empty disk."""
    disk = sqlite3.connect(":memory:", factory=Disk, isolation_level=None)
    disk.set_up(house)
    return disk


class Ballast:
    """What the gateway throws off when the disk is full."""

    def __init__(self, house: House) -> None:
        self._house = house

    def load(self) -> bool:
        """Make it again when there is plenty of room."""
        disk = self._house.disk
        if self._house.timeline.now_s >= disk.full_until_s:
            disk.ballast = True
        return disk.ballast

    def drop(self) -> bool:
        """Throw it off; tell whether there was any."""
        return self._house.disk.drop_ballast()
