"""The loss ledger, read: what became of every number, from a connection that cannot write.

Rule: nothing here changes anything; the file may be in use by a running gateway.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kerb_gateway.errors import StoreError
from kerb_gateway.store import files
from kerb_gateway.store.outbox import NO_LETTER

REFUSED = "refused"
_DONE = "coalesce((select cast(value as integer) from meta where key = 'outbox_done'), 0)"


@dataclass(frozen=True)
class LossRow:
    """A range that will never come; last_seq None: open-ended.

    wall_ms as good as its quality: ntp, none, or anchored: what the clock said was not known to be
    right then, and the boot's anchor has put it right since.
    closed_seq: the node's newest number when an open-ended one was taken back.
    """

    node: str
    epoch: int
    first_seq: int
    last_seq: int | None
    reason: str
    closed_seq: int | None
    wall_ms: int | None
    wall_quality: str | None


@dataclass(frozen=True)
class StreamRow:
    """One epoch's account: last_seq = delivered + queued + refused + in_gaps + lost + elsewhere.

    elsewhere: delivered by another gateway of the group, never stored here.
    """

    node: str
    epoch: int
    last_seq: int
    delivered: int
    queued: int
    refused: int
    in_gaps: int
    lost: int
    elsewhere: int = 0

    @property
    def unexplained(self) -> int:
        """What the parts leave over: always zero."""
        parts = self.delivered + self.queued + self.refused + self.in_gaps + self.lost
        return self.last_seq - parts - self.elsewhere


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a gateway's database for reading; StoreError says what is in the way."""
    if not files.is_file(path):
        raise StoreError(f"{path}: there is no such file")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        connection.row_factory = sqlite3.Row
        with contextlib.closing(connection):
            connection.execute("begin")  # one view of all tables
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"{path}: not a gateway's database of this release: {error}") from error


def losses(
    connection: sqlite3.Connection, node: str | None = None, since_wall_ms: int | None = None
) -> list[LossRow]:
    """Return the declared losses, oldest first; those of unknown time are never left out.

    When one was declared is its time on the clock that never jumps, resolved by the nearest
    anchor of that boot; only where there is none it is what the wall clock said.
    """
    rows = connection.execute(
        "select n.node_id, s.epoch, l.first_seq, l.last_seq, l.reason, l.closed_seq, "
        "l.wall_ms, l.wall_quality, l.boot_id, l.boottime_ms "
        "from losses l join streams s using (stream_no) join nodes n using (node_no) "
        "where :node is null or n.node_id = :node order by l.loss_no",
        {"node": node},
    )
    anchors = _anchors(connection)
    found = []
    for node_id, epoch, first, last, reason, closed, wall_ms, quality, boot_id, at_ms in rows:
        if quality != "ntp" and boot_id in anchors:
            then_ms, right_ms = min(anchors[boot_id], key=lambda one: abs(one[0] - at_ms))
            wall_ms, quality = right_ms + at_ms - then_ms, "anchored"
        known = wall_ms is not None and quality in ("ntp", "anchored")
        if since_wall_ms is None or not known or wall_ms >= since_wall_ms:
            found.append(LossRow(node_id, epoch, first, last, reason, closed, wall_ms, quality))
    return found


def _anchors(connection: sqlite3.Connection) -> dict[str, list[tuple[int, int]]]:
    """Return the pairs (boottime_ms, wall_ms) that are known of each boot."""
    found: dict[str, list[tuple[int, int]]] = {}
    for boot_id, boottime_ms, wall_ms in connection.execute(
        "select boot_id, boottime_ms, wall_ms from clock_anchors "
        "join gateway_boots using (gateway_boot_no)"
    ):
        found.setdefault(boot_id, []).append((boottime_ms, wall_ms))
    return found


def streams(connection: sqlite3.Connection, node: str | None = None) -> list[StreamRow]:
    """Return the account of each stream."""
    queued = dict(
        connection.execute(
            "select r.stream_no, count(distinct r.reading_no) from outbox o "
            "join readings r on r.reading_no = o.row_no "
            f"where o.kind = 'reading' and o.outbox_no > {_DONE} and {NO_LETTER} "
            "group by r.stream_no"
        ).fetchall()
    )
    refused = _refused(connection)
    rows = connection.execute(
        "select s.*, n.node_id, (select coalesce(sum(g.last_seq - g.first_seq + 1), 0) "
        "from gaps g where g.stream_no = s.stream_no) as in_gaps "
        "from streams s join nodes n using (node_no) "
        "where :node is null or n.node_id = :node order by n.node_id, s.stream_no",
        {"node": node},
    )
    found = []
    for row in rows:
        waits = queued.get(row["stream_no"], 0)
        dead = refused.get((row["node_id"], row["epoch"]), 0) + row["given_up"]
        found.append(
            StreamRow(
                row["node_id"],
                row["epoch"],
                row["last_seq"],
                row["stored"] - waits - dead,
                waits,
                dead,
                row["in_gaps"],
                row["lost"],
                row["elsewhere"],
            )
        )
    return found


def _refused(connection: sqlite3.Connection) -> dict[tuple[str, int], int]:
    """Count the readings among the dead letters, and those that a person dropped, by origin."""
    counts: dict[tuple[str, int], int] = {}
    for row in connection.execute(
        "select node, epoch, count(*) from (select json_extract(payload, '$.node') as node, "
        "json_extract(payload, '$.epoch') as epoch from dead_letters where kind = 'reading' "
        "union all select node, epoch from ended_letters "
        "where ended = 'dropped' and kind = 'reading') group by 1, 2"
    ):
        counts[(row[0], row[1])] = row[2]
    return counts


def as_json(rows: list[LossRow] | list[StreamRow]) -> list[dict[str, Any]]:
    """Return rows as plain tables."""
    return [asdict(row) for row in rows]
