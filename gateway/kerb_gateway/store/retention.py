"""Bounds the database by age and by size: the oldest delivered rows go first.

Rule: a dead letter that goes is said upstream; what was not delivered goes only when the size
leaves no choice and its going makes room enough, and is declared lost in the transaction that
removes it. Age is counted in hours that the gateway has lived, never in wall time: time that the
machine was off makes rows stay longer, never shorter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from kerb_gateway.clock import Clock
from kerb_gateway.model import Loss, Stream
from kerb_gateway.store.database import WAL_MAX_BYTES, Many, Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.letters import BITE, Letters
from kerb_gateway.store.outbox import NO_LETTER

HOUR_S = 3600.0
KEEP_COMMANDS = 10_000  # so many that have their result are known when they come again
_BITE_ROWS = 5000  # rows that one transaction removes
_READING_BYTES = 400  # more than a reading takes with its outbox row
_LIVED = "lived"  # meta: "boot_id boottime_s lived_s" of the last count

Log = Callable[..., Any]


class _Hour(NamedTuple):
    """How far the tables had come."""

    hour_no: int
    reading_no: int
    outbox_no: int
    loss_no: int


class Retention:
    """Counts the hours and sweeps; call hour() about once an hour."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        clock: Clock,
        log: Log,
        *,
        commit: Callable[[], Awaitable[None]],
        keep_s: float,
        max_bytes: int,
        letters: Letters | None = None,
        keep_letters: int = 10000,
    ) -> None:
        """commit: commits what the ledger holds, in turn with everybody else; StoreFull.

        letters: the dead letters; at most keep_letters stay, and as many rows about ended ones.
        """
        self._letters = letters or Letters(store, ledger, clock)
        self._keep_letters = keep_letters
        self._commit = commit
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._log = log
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._pinned = False
        self._too_large = False

    async def hour(self) -> None:
        """Note how far the tables are, then remove what is too old or too much."""
        lived_s = await self._live()
        await self._store.write(
            [
                (
                    "insert into hours (lived_s, reading_no, outbox_no, loss_no) select ?, "
                    "coalesce((select max(reading_no) from readings), 0), "
                    "coalesce((select max(outbox_no) from outbox), 0), "
                    "coalesce((select max(loss_no) from losses), 0)",
                    [lived_s],
                )
            ]
        )
        await self._by_age(lived_s)
        await self._too_many_letters()
        await self._too_many_commands()
        await self._by_size()
        self._look_at_wal()

    def _look_at_wal(self) -> None:
        """Say it, once, when a reader that does not end keeps the log from being emptied.

        Our own readers end (store/report.py); somebody else's cannot be ended from here.
        """
        pinned = self._store.wal_bytes() > WAL_MAX_BYTES
        if pinned and not self._pinned:
            what = {"what": "a reader pins the write-ahead log", "bytes": self._store.wal_bytes()}
            self._log("a reader pins the write-ahead log", bytes=what["bytes"])
            self._ledger.add_alarm("gateway", what)
        self._pinned = pinned

    async def _live(self) -> int:
        """Return the seconds that the gateway has lived, gaps between boots left out."""
        now = self._clock.now()
        boottime_s = now.boottime_ms // 1000
        rows = await self._store.query("select value from meta where key = ?", [_LIVED])
        lived_s = 0
        if rows:
            boot_id, before, lived = str(rows[0][0]).rsplit(" ", 2)
            since_s = boottime_s - int(before) if boot_id == now.boot_id else boottime_s
            lived_s = int(lived) + max(0, since_s)
        await self._store.write(
            [
                (
                    "insert into meta values (?,?) on conflict (key) "
                    "do update set value = excluded.value",
                    [_LIVED, f"{now.boot_id} {boottime_s} {lived_s}"],
                )
            ]
        )
        return lived_s

    async def _by_age(self, lived_s: int) -> None:
        for hour in await self._hours(
            "where lived_s <= ? and outbox_no <= ? order by hour_no desc limit 1",
            lived_s - self._keep_s,
            self._ledger.outbox.done,
        ):
            await self._remove(hour, "age")

    async def _by_size(self) -> None:
        """Remove hour by hour; less than an hour of readings is left to the next time.

        What was delivered goes first, then dead letters, then what was not delivered.
        """
        while (used := await self.used_bytes()) > self._max_bytes:
            hours = await self._hours("order by hour_no limit 1")
            undelivered = not hours or hours[0].outbox_no > self._ledger.outbox.done
            if undelivered and await self._drop_letters(BITE, "no room on the disk"):
                continue
            if not hours:
                self._say_too_large(used)
                return
            if undelivered:
                if await self._would_help(used):
                    async with self._ledger.outbox.turn:
                        await self._give_up(hours[0].outbox_no)
                else:
                    self._say_too_large(used)
            await self._remove(hours[0], "size")
        self._too_large = False

    async def _would_help(self, used: int) -> bool:
        """Tell whether there is room enough without the undelivered readings, if all went."""
        rows = await self._store.query(
            "select count(*) from outbox where kind = 'reading' and outbox_no > ? "
            f"and {NO_LETTER}",
            [self._ledger.outbox.in_hand],
        )
        return used - int(rows[0][0]) * _READING_BYTES <= self._max_bytes

    def _say_too_large(self, used: int) -> None:
        """Say it once: something else than readings and letters fills the file."""
        if not self._too_large:
            what = "the database is too large, and giving up readings would not help"
            self._log(what, bytes=used, max_bytes=self._max_bytes)
            alarm = {"what": what, "bytes": used, "max_bytes": self._max_bytes}
            self._ledger.add_alarm("gateway", alarm)
        self._too_large = True

    async def _too_many_letters(self) -> None:
        """Keep so many dead letters, and so many rows about those that ended."""
        while (surplus := await self._letters.count() - self._keep_letters) > 0:
            why = f"more than {self._keep_letters} dead letters"
            if not await self._drop_letters(surplus, why):
                return
        while await self._letters.forget(self._keep_letters):
            await self._commit()

    async def _too_many_commands(self) -> None:
        """Keep so many commands that have their result; the newest keeps the numbers going on."""
        rows = await self._store.query(
            "select command_no from commands where state = 'done' "
            "order by command_no desc limit 1 offset ?",
            [KEEP_COMMANDS],
        )
        if rows:
            await self._bites("commands", "command_no", rows[0][0], "and state = 'done'")

    async def _drop_letters(self, count: int, why: str) -> int:
        """Give up the oldest dead letters, a bite of them, with their records."""
        async with self._letters.turn:
            await self._commit()  # what an earlier time gave up, but found no room to store
            given_up = await self._letters.give_up(count, why)
            if given_up:
                await self._commit()
        if given_up:
            self._log("dead letters dropped", letters=given_up, why=why)
        return given_up

    async def _hours(self, condition: str, *parameters: Any) -> list[_Hour]:
        rows = await self._store.query(
            f"select hour_no, reading_no, outbox_no, coalesce(loss_no, 0) from hours {condition}",
            parameters,
        )
        return [_Hour(*row) for row in rows]

    async def used_bytes(self) -> int:
        """Return what the file's used pages take; free ones are used again."""
        rows = await self._store.query(
            "select (page_count - freelist_count) * page_size from pragma_page_count(), "
            "pragma_freelist_count(), pragma_page_size()"
        )
        return int(rows[0][0])

    async def _remove(self, hour: _Hour, why: str) -> None:
        """Remove what is delivered up to an hour, in bites; the hour's own row goes last."""
        done = self._ledger.outbox.done
        removed = await self._bites("outbox", "outbox_no", min(hour.outbox_no, done), "")
        # The newest of each always stays: its number is where the next one goes on.
        removed += await self._bites(
            "readings",
            "reading_no",
            hour.reading_no,
            "and reading_no < (select max(reading_no) from readings) and reading_no not in "
            f"(select row_no from outbox where kind = 'reading' and outbox_no > {done:d})",
        )
        removed += await self._bites(
            "losses",
            "loss_no",
            hour.loss_no,
            "and loss_no < (select max(loss_no) from losses) "
            "and (last_seq is not null or closed_seq is not null) and loss_no not in "
            f"(select row_no from outbox where kind = 'loss' and outbox_no > {done:d})",
        )
        await self._store.write([("delete from hours where hour_no <= ?", [hour.hour_no])])
        if removed:
            self._log("old rows removed", why=why, rows=removed)

    async def _bites(self, table: str, key: str, last: int, spare: str) -> int:
        """Remove the rows up to `last` but for those that `spare` names; returns how many."""
        removed = at = 0
        while True:
            rows = await self._store.query(
                f"select max({key}) from (select {key} from {table} "
                f"where {key} > ? and {key} <= ? order by {key} limit ?)",
                [at, last, _BITE_ROWS],
            )
            if rows[0][0] is None:
                return removed
            before, at = at, rows[0][0]
            where = f"where {key} > ? and {key} <= ? {spare}"
            counted = await self._store.query(
                f"select count(*) from {table} {where}", [before, at]
            )
            await self._store.write([(f"delete from {table} {where}", [before, at])])
            removed += counted[0][0]

    async def _give_up(self, outbox_no: int) -> None:
        """Declare undelivered readings lost, but for those that are on their way right now.

        The rows, their outbox rows and the loss records change in one transaction. The caller has
        the outbox's turn: what is being read for the publisher counts as on its way, too.
        """
        self._ledger.outbox.let_go()
        rows = await self._store.query(
            "select r.stream_no, r.seq, r.reading_no, o.outbox_no from outbox o "
            "join readings r on r.reading_no = o.row_no "
            "where o.kind = 'reading' and o.outbox_no > ? and o.outbox_no <= ? "
            f"and {NO_LETTER} "
            "order by r.stream_no, r.seq",
            [self._ledger.outbox.in_hand, outbox_no],
        )
        if not rows:
            return
        by_no = await self._streams({row[0] for row in rows})
        for number, statement in (
            (2, "delete from readings where reading_no = ?"),
            (3, "delete from outbox where outbox_no = ?"),
        ):
            self._ledger.add(Many(statement, [[row[number]] for row in rows]))
        for stream_no, first_seq, last_seq in _ranges(rows):
            stream = by_no[stream_no]
            stream.stored -= last_seq - first_seq + 1
            loss = Loss(stream, first_seq, last_seq, "retention")
            self._ledger.add_loss(loss, self._clock.now())
        await self._commit()
        self._log("undelivered readings given up: no room", readings=len(rows))

    async def _streams(self, numbers: set[int]) -> dict[int, Stream]:
        """Return streams by their number, those of retired nodes from the file."""
        streams = {one.stream_no: one for one in self._ledger.streams.values()}
        retired = numbers - streams.keys()
        streams |= {number: await self._ledger.stored_stream(number) for number in retired}
        return streams


def _ranges(rows: list[tuple[Any, ...]]) -> list[tuple[int, int, int]]:
    """Return (stream_no, first_seq, last_seq) of rows that are ordered by stream and seq."""
    found: list[tuple[int, int, int]] = []
    for stream_no, seq, *_ in rows:
        if found and found[-1][0] == stream_no and found[-1][2] + 1 == seq:
            found[-1] = (stream_no, found[-1][1], seq)
        else:
            found.append((stream_no, seq, seq))
    return found
