"""Which states to try at one moment: every prefix, and subsets of what was not yet synced.

Rule: each state involves the newest change, so that no moment repeats what an earlier one has
tried; what is bounded is drawn from the seed, and a prefix is never left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from kerb_tools.faults.disk import Disk, Pending
from kerb_tools.faults.oplog import CREATE, RENAME, TRUNCATE, UNLINK, WRITE, Change

SECTOR_BYTES = 512
_SINGLES = 24  # of more pending changes, so many are dropped one at a time
_SUBSETS = 4
_GARBLED = 2
_ENTRIES = (CREATE, UNLINK, RENAME)
Arrived = list[tuple[Pending, Change]]


@dataclass(frozen=True)
class Cut:
    """One state: how it came about, and what arrived."""

    how: str
    arrived: Arrived


def cuts(disk: Disk, rng: random.Random) -> Iterator[Cut]:
    """Yield the states of this moment; the first is the prefix, or what is durable alone."""
    pending = disk.pending
    whole = [(one, one.change) for one in pending]
    yield Cut("prefix", whole)
    if not pending or not _is_newest(disk, pending[-1]):
        yield Cut("nothing unsynced", [])
        return
    newest = pending[-1]
    contents = [row for row in whole if row[0].change.kind not in _ENTRIES]
    if len(contents) < len(whole):
        yield Cut("directory late", contents)
    if len(whole) > 1:
        yield Cut("only the newest", [*_entries(whole), whole[-1]])
    for dropped in _sample(whole[:-1], _SINGLES, rng):
        yield Cut("one dropped", _ordered([row for row in whole if row is not dropped], whole))
    for torn in _torn(newest.change, rng):
        yield Cut("torn", [*whole[:-1], (newest, torn)])
    if len(whole) > 2:
        for _ in range(_SUBSETS):
            kept = [row for row in whole[:-1] if rng.random() < 0.5]
            yield Cut("subset", _ordered([*kept, whole[-1]], whole))
        yield from _reordered(whole)


def _is_newest(disk: Disk, one: Pending) -> bool:
    return one.number == disk.taken


def _entries(rows: Arrived) -> Arrived:
    return [row for row in rows[:-1] if row[0].change.kind in _ENTRIES]


def _sample(rows: Arrived, most: int, rng: random.Random) -> Arrived:
    return rows if len(rows) <= most else rng.sample(rows, most)


def _ordered(kept: Arrived, whole: Arrived) -> Arrived:
    """Leave out entries behind one that did not arrive: a directory keeps its order."""
    numbers = {one.number for one, _ in kept}
    missing = [
        one.number for one, _ in whole if one.change.kind in _ENTRIES and one.number not in numbers
    ]
    first = min(missing, default=None)
    if first is None:
        return kept
    return [row for row in kept if row[0].change.kind not in _ENTRIES or row[0].number < first]


def _torn(change: Change, rng: random.Random) -> Iterator[Change]:
    """Yield a write of which only the first or the last sectors arrived, or one is garbled."""
    if change.kind != WRITE:
        return
    first, end = change.offset, change.offset + len(change.data)
    edges = list(range(first // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES))
    for edge in edges:
        yield Change(WRITE, change.name, first, change.data[: edge - first])
        yield Change(WRITE, change.name, edge, change.data[edge - first :])
    for begin in _some([first, *edges], rng):
        at = begin - first
        stop = min(len(change.data), at + SECTOR_BYTES - begin % SECTOR_BYTES)
        noise = rng.randbytes(stop - at)
        data = change.data[:at] + noise + change.data[stop:]
        yield Change(WRITE, change.name, first, data)


def _some(edges: list[int], rng: random.Random) -> list[int]:
    return rng.sample(edges, min(_GARBLED, len(edges)))


def _reordered(rows: Arrived) -> Iterator[Cut]:
    """Yield the newest change before an earlier one where the order can be seen."""
    newest = rows[-1]
    for index in range(len(rows) - 2, -1, -1):
        other = rows[index]
        if _overlap(newest, other):
            yield Cut("reordered", [*rows[:index], newest, *rows[index:-1]])
            return


def _overlap(left: tuple[Pending, Change], right: tuple[Pending, Change]) -> bool:
    if left[0].file != right[0].file or {left[1].kind, right[1].kind} & set(_ENTRIES):
        return False
    if TRUNCATE in (left[1].kind, right[1].kind):
        return True
    first, second = left[1], right[1]
    return first.offset < second.offset + len(second.data) and second.offset < first.offset + len(
        first.data
    )
