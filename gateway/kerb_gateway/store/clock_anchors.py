"""The gateway's boots in their order, and the anchors that tie them to wall time.

Rule: an anchor and the record of it upstream share a batch; nothing here orders, retries or
removes anything by wall time.
"""

from __future__ import annotations

from typing import Any

from kerb_gateway.anchor import (
    AGAIN_MS,
    ANCHORED,
    DRIFT_PPM,
    NONE,
    NTP,
    PAUSE_MS,
    RANGE,
    STEP_MS,
    Anchor,
    Boot,
    Offset,
    offset_at,
    offset_from,
    start_between,
)
from kerb_gateway.clock import Moment
from kerb_gateway.store.database import Operation, Store

_BOOTS_MOST = 1000  # what is older is forgotten: its rows are long delivered
_ANCHORS_MOST = 64  # of one boot, the newest: two months of days
_MAPPED_MOST = 4096  # a visit's records all ask for the same few contacts


class ClockAnchors:
    """What is known of the gateway's boots; in memory at once, on disk with the next batch."""

    def __init__(self) -> None:
        self.boots: list[Boot] = []
        self._index: dict[str, int] = {}
        self._starts: dict[int, Offset] = {}  # of boots without an anchor, until one comes
        self._next_anchor = 1
        self._last_seen_ms = 0
        self._mapped: dict[tuple[str, int, str], tuple[int, int] | None] = {}

    @classmethod
    async def load(cls, store: Store) -> ClockAnchors:
        """Read boots and anchors, and where the newest boot's readings end."""
        known = cls()
        for row in await store.query(
            "select * from (select gateway_boot_no, boot_id, last_ms from gateway_boots "
            "order by gateway_boot_no desc limit ?) order by gateway_boot_no",
            [_BOOTS_MOST],
        ):
            known._append(Boot(*row))
        by_no = {boot.gateway_boot_no: boot for boot in known.boots}
        for number, boot_no, *numbers in await store.query(
            "select anchor_no, gateway_boot_no, boottime_ms, wall_ms, uncertainty_ms "
            "from clock_anchors order by anchor_no"
        ):
            known._next_anchor = number + 1
            if boot_no in by_no:
                by_no[boot_no].anchors.append(Anchor(*numbers))
        rows = await store.query(
            "select boot_id, boottime_ms from readings order by reading_no desc limit 1"
        )
        if rows and known.boots and rows[0][0] == known.boots[-1].boot_id:
            known._last_seen_ms = rows[0][1]
        return known

    def _append(self, boot: Boot) -> None:
        self._starts.clear()
        self._index[boot.boot_id] = len(self.boots)
        self.boots.append(boot)

    # --- what happens ---

    def known(self, boot_id: str) -> bool:
        """Tell whether a boot has its number."""
        return boot_id in self._index

    def begin(self, boot_id: str) -> list[Operation]:
        """Give a boot the next number, end the one before; returns what stores that."""
        operations: list[Operation] = []
        number = 1
        if self.boots:
            before = self.boots[-1]
            number = before.gateway_boot_no + 1
            anchored_ms = max((one.boottime_ms for one in before.anchors), default=0)
            before.last_ms = max(before.last_ms, self._last_seen_ms, anchored_ms)
            operations.append(
                (
                    "update gateway_boots set last_ms = ? where gateway_boot_no = ?",
                    [before.last_ms, before.gateway_boot_no],
                )
            )
        operations += [
            ("insert into gateway_boots values (?,?,0)", [number, boot_id]),
            ("delete from gateway_boots where gateway_boot_no <= ?", [number - _BOOTS_MOST]),
            ("delete from clock_anchors where gateway_boot_no <= ?", [number - _BOOTS_MOST]),
        ]
        self._last_seen_ms = 0
        self._mapped.clear()
        self._append(Boot(number, boot_id))
        return operations

    def look(self, moment: Moment) -> tuple[list[Operation], list[dict[str, Any]]]:
        """Look at the wall clock; returns what stores an anchor and what says so upstream.

        Nothing, unless the clock is kept right and has moved, or is kept right for the first time
        in this boot or in a day.
        """
        index = self._index[moment.boot_id]
        boot = self.boots[index]
        self._last_seen_ms = max(self._last_seen_ms, moment.boottime_ms)
        if moment.quality != NTP or not _is_due(boot, moment):
            return [], []
        first = not boot.anchors
        anchor = Anchor(moment.boottime_ms, moment.wall_ms)
        boot.anchors.append(anchor)
        self._starts.clear()
        self._mapped.clear()
        operations: list[Operation] = [
            (
                "insert into clock_anchors values (?,?,?,?,?)",
                [
                    self._next_anchor,
                    boot.gateway_boot_no,
                    anchor.boottime_ms,
                    anchor.wall_ms,
                    anchor.uncertainty_ms,
                ],
            )
        ]
        self._next_anchor += 1
        if len(boot.anchors) > _ANCHORS_MOST:
            gone = boot.anchors.pop(0)
            operations.append(
                (
                    "delete from clock_anchors where gateway_boot_no = ? and boottime_ms = ?",
                    [boot.gateway_boot_no, gone.boottime_ms],
                )
            )
        said = [_anchor_said(boot, anchor)]
        if first:
            said += self._ranges_before(index)
        return operations, said

    def _ranges_before(self, index: int) -> list[dict[str, Any]]:
        """Return what is now known of the boots before this one that were never kept right."""
        said: list[dict[str, Any]] = []
        for before in range(index - 1, -1, -1):
            if self.boots[before].anchors:
                break
            said.append(_range_said(self.boots[before], start_between(self.boots, before)))
        return list(reversed(said))

    # --- what is asked ---

    def offset(self, boot_id: str, boottime_ms: int) -> tuple[Offset, str]:
        """Return the wall clock's offset at a moment of a boot, and how it is known."""
        index = self._index.get(boot_id)
        if index is None:
            return Offset(None, None), NONE
        boot = self.boots[index]
        if boot.anchors:
            return Offset(*offset_at(boot.anchors, boottime_ms)), ANCHORED
        start = self._starts.get(index)
        if start is None:
            start = self._starts[index] = start_between(self.boots, index)
        if start.low_ms is start.high_ms is None:
            return start, NONE
        return offset_from(start, boottime_ms), RANGE

    def mapping(self, boot_id: str, t_ms: int, axis: str) -> tuple[int, int] | None:
        """Return where a moment of one boot lies on another boot's axis, if both are known."""
        key = (boot_id, t_ms, axis)
        if key not in self._mapped:
            if len(self._mapped) >= _MAPPED_MOST:
                self._mapped.clear()
            self._mapped[key] = self._map(boot_id, t_ms, axis)
        return self._mapped[key]

    def _map(self, boot_id: str, t_ms: int, axis: str) -> tuple[int, int] | None:
        here = self.offset(boot_id, t_ms)[0].ends
        about = self.offset(axis, 0)[0].ends
        if here is None or about is None:
            return None
        there = self.offset(axis, t_ms + here[0] - about[0])[0].ends
        if there is None:
            return None
        # The moment's own distance from the axis's anchors may be a little more than the guess's.
        return t_ms + here[0] - there[1] - 1, t_ms + here[1] - there[0] + 1


def _is_due(boot: Boot, moment: Moment) -> bool:
    if not boot.anchors:
        return True
    newest = boot.anchors[-1]
    since_ms = moment.boottime_ms - newest.boottime_ms
    moved_ms = abs(moment.wall_ms - moment.boottime_ms - newest.offset_ms)
    return since_ms >= PAUSE_MS and (moved_ms > STEP_MS or since_ms >= AGAIN_MS)


def _anchor_said(boot: Boot, anchor: Anchor) -> dict[str, Any]:
    return {
        "id": f"anchor/{boot.boot_id}/{anchor.boottime_ms}",
        "boot_id": boot.boot_id,
        "quality": NTP,
        "boottime_ms": anchor.boottime_ms,
        "wall_ms": anchor.wall_ms,
        "offset_ms": anchor.offset_ms,
        "uncertainty_ms": anchor.uncertainty_ms,
        "drift_ppm": DRIFT_PPM,
    }


def _end(offset_ms: int | None) -> str:
    return "" if offset_ms is None else str(offset_ms)


def _range_said(boot: Boot, start: Offset) -> dict[str, Any]:
    """Say of a boot without NTP when it began; its middle and half its width, if it has both."""
    ends = start.ends
    middle = None if ends is None else (ends[0] + ends[1]) // 2
    half = None if ends is None else (ends[1] - ends[0]) // 2 + 1
    return {
        # With both ends: after a restore it is said anew, from what is learnt then.
        "id": f"anchor/{boot.boot_id}/range/{_end(start.low_ms)}/{_end(start.high_ms)}",
        "boot_id": boot.boot_id,
        "quality": RANGE,
        "boottime_ms": 0,
        "wall_ms": middle,
        "offset_ms": middle,
        "uncertainty_ms": half,
        "drift_ppm": DRIFT_PPM,
        "offset_min_ms": start.low_ms,
        "offset_max_ms": start.high_ms,
    }
