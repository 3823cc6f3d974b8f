"""Gives each reading its time, from contacts with the nodes' clocks, and anchors the wall clock.

Rule: nothing here costs a transaction of its own; what is learnt goes with the next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerb_gateway.clock import Clock, Moment
from kerb_gateway.model import Stream
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.timeline import DOOR_S, STALE_MS, Contact, Span, Stamp, advert_age_ms

BEAT_MS = 1000
_LATE_MS = 1000  # a beat that is later than that was held up, and so was what came over the air
_AFTER_MS = 30_000  # for so long what was held up still comes out of the queues

Log = Callable[..., Any]


@dataclass(frozen=True)
class NodeClock:
    """What a node says of its clock: this boot, the seconds since, and its newest number."""

    boot_no: int
    uptime_s: int
    last_seq: int


class Timekeeper:
    """One for a gateway; ingest asks it for the time of what it stores."""

    def __init__(self, ledger: Ledger, clock: Clock, log: Log, door_s: float = DOOR_S) -> None:
        """door_s: how long nodes send an advert."""
        self._ledger = ledger
        self._clock = clock
        self._log = log
        self._began_ms = clock.boottime_ms()
        self._age_ms = advert_age_ms(round(1000 * door_s))
        self._beat_ms: int | None = None
        self._held_up_ms = 0
        self._held_up_until_ms = 0

    def boottime_ms(self) -> int:
        """Return this moment on the clock that never jumps."""
        return self._clock.boottime_ms()

    def contact(self, stream: Stream, clock: NodeClock, asked_ms: int, answered_ms: int) -> None:
        """Take what an answer says of the node's clock; when (boottime) it was asked, and came."""
        contact = Contact(
            self._clock.now().boot_id,
            clock.boot_no,
            clock.uptime_s,
            clock.last_seq,
            asked_ms,
            answered_ms,
        )
        if not self._ledger.contacts.meet(stream, contact):
            self._ledger.count("node's clock contradicts itself", stream.node.node_no)

    def of_advert(
        self, stream: Stream, seq: int, heard_ms: int, moment: Moment, *, repeated: bool
    ) -> Span:
        """Return when a reading was made that was just heard."""
        timeline = self._ledger.contacts.of(stream)
        timeline.heard(seq, moment.boot_id, heard_ms)
        age_ms = self._age_ms + self._late_ms(heard_ms)
        return timeline.advert(seq, moment.boot_id, heard_ms, age_ms, repeated=repeated)

    def beat(self) -> None:
        """Say that the event loop runs; to be called every BEAT_MS.

        While the process stands still (a stopped process, a machine that swaps) adverts wait in
        front of it, and seem younger than they are.
        """
        now_ms = self._clock.boottime_ms()
        if self._beat_ms is not None and now_ms - self._beat_ms > BEAT_MS + _LATE_MS:
            self._held_up_ms = now_ms - self._beat_ms
            self._held_up_until_ms = now_ms + _AFTER_MS
            self._log("the process stood still", for_s=round(self._held_up_ms / 1000, 1))
        self._beat_ms = now_ms

    def _late_ms(self, heard_ms: int) -> int:
        """Return for how long an advert may have waited in front of this process."""
        # What BlueZ heard while this process was not there yet may still come.
        late_ms = STALE_MS if heard_ms - self._began_ms < STALE_MS else 0
        if heard_ms < self._held_up_until_ms:
            late_ms = max(late_ms, self._held_up_ms)
        if self._beat_ms is not None and heard_ms - self._beat_ms > BEAT_MS + _LATE_MS:
            late_ms = max(late_ms, heard_ms - self._beat_ms)
        return late_ms

    def of_record(self, stream: Stream, row: Any, moment: Moment) -> Span:
        """Return when a record was made that was just fetched."""
        timeline = self._ledger.contacts.of(stream)
        before = timeline.contradictions
        span = timeline.place(
            Stamp(row.seq, row.boot_no, row.uptime_s),
            moment.boot_id,
            moment.boottime_ms,
            self._ledger.anchors.mapping,
        )
        if timeline.contradictions != before:
            self._ledger.count("record contradicts its node's clock", stream.node.node_no)
        return span

    def look(self) -> None:
        """Anchor the wall clock if it gives cause; to be called now and then."""
        number = self._ledger.keep_time(self._clock.now())
        if number:
            self._log("wall clock anchored", records=number)

    def keep_contacts(self, *, at_once: bool = False) -> None:
        """Let the next batch hold the contacts, if an hour is over or the process is to end."""
        self._ledger.keep_contacts(self._clock.now(), at_once=at_once)
