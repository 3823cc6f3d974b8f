"""The gateway's nouns: a node, a stream of its readings, what was heard, what is stored.

Rule: plain data, no I/O; a stream is one (node, epoch), and its watermark, recent digests and
gaps always say together which numbers are accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import msgspec

RECENT_DIGESTS = 64


@dataclass(frozen=True)
class Geometry:
    """A container: how far the empty floor and the full level are from the transducer (mm)."""

    shape: str
    empty_distance_mm: int
    full_distance_mm: int


@dataclass(frozen=True)
class Node:
    """A configured node; node_no is its key in the database."""

    node_no: int
    node_id: str
    role: str
    root_key: bytes = field(repr=False)
    geometry: Geometry | None = None
    bus: str | None = None
    unit: int | None = None
    silent_after_s: float | None = None
    wifi: bool = False  # it comes through the gateway's own broker

    @property
    def leased(self) -> bool:
        """Tell whether the gateways of a group share it: only what any of them hears, over BLE."""
        return self.bus is None and not self.wifi


@dataclass(frozen=True)
class Heard:
    """One advert as an adapter heard it; `handle` is what the link needs to connect back."""

    address: str
    service_data: bytes
    rssi: int
    adapter: str
    boottime_ms: int
    handle: Any = None


@dataclass
class Gap:
    """Numbers first_seq..last_seq (both included) that the gateway knows to be missing."""

    first_seq: int
    last_seq: int


@dataclass(frozen=True)
class Origin:
    """Where numbers come from: a node's epoch."""

    node_id: str
    epoch: int


@dataclass
class Stream:
    """What is known of one node's epoch."""

    stream_no: int
    node: Node
    epoch: int
    last_seq: int = 0
    stored: int = 0
    lost: int = 0
    gaps: list[Gap] = field(default_factory=list)
    recent: dict[int, bytes] = field(default_factory=dict)  # digests, the lowest number first
    written_gaps: tuple[tuple[int, int], ...] = ()
    contact_ms: int | None = None  # boottime of the last contact of this process
    silence_noted: bool = False  # the database holds for how long it was not heard
    tail_no: int | None = None  # the loss_no of the open-ended loss that stands
    tail_seq: int = 0  # its first number
    backlog: int | None = None  # unacknowledged records, as the node's last advert said
    held: bool = False  # restored: no advert is believed before the node has said its number
    elsewhere: int = 0  # numbers that another gateway has delivered, never stored here

    @cached_property
    def origin(self) -> Origin:
        """Where its numbers come from."""
        return Origin(self.node.node_id, self.epoch)

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the gaps as plain numbers."""
        return tuple((gap.first_seq, gap.last_seq) for gap in self.gaps)

    def remember(self, seq: int, digest: bytes) -> None:
        """Keep a digest; the oldest of more than RECENT_DIGESTS goes."""
        recent = self.recent
        behind = bool(recent) and seq < next(reversed(recent))
        recent[seq] = digest
        if behind:  # backfill's: rare, and from here on the first is the lowest again
            self.recent = recent = dict(sorted(recent.items()))
        while len(recent) > RECENT_DIGESTS:
            del recent[next(iter(recent))]

    def missing(self) -> int:
        """Return how many numbers the open gaps hold."""
        return sum(gap.last_seq - gap.first_seq + 1 for gap in self.gaps)

    def unexplained(self) -> int:
        """Return last_seq less what is stored here or elsewhere, lost or in a gap: always zero."""
        return self.last_seq - self.stored - self.elsewhere - self.lost - self.missing()

    def in_gap(self, seq: int) -> bool:
        """Tell whether `seq` is known to be missing."""
        return any(gap.first_seq <= seq <= gap.last_seq for gap in self.gaps)

    def close(self, first_seq: int, last_seq: int) -> None:
        """Take first_seq..last_seq out of the gaps; a gap may shrink, split or end."""
        left: list[Gap] = []
        for gap in self.gaps:
            if gap.last_seq < first_seq or gap.first_seq > last_seq:
                left.append(gap)
                continue
            if gap.first_seq < first_seq:
                left.append(Gap(gap.first_seq, first_seq - 1))
            if gap.last_seq > last_seq:
                left.append(Gap(last_seq + 1, gap.last_seq))
        self.gaps = left

    def accounted_seq(self) -> int:
        """Return the highest number up to which nothing is open."""
        if not self.gaps:
            return self.last_seq
        return min(gap.first_seq for gap in self.gaps) - 1


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading as it is stored: its fields are the columns of the readings table."""

    reading_no: int
    stream_no: int
    seq: int
    kind: str  # fill | lamp
    # when it arrived
    boot_id: str
    boottime_ms: int
    wall_ms: int | None
    wall_quality: str
    # when it was made
    t_boot_id: str | None  # None: boot_id
    t_min_ms: int | None
    t_ms: int | None
    t_max_ms: int | None
    # how it came
    via: str | None = None
    auth: str | None = None
    digest: bytes | None = None
    # by a record only
    record: bytes | None = None
    boot_no: int | None = None
    uptime_s: int | None = None
    event: str | None = None
    # of a bin
    distance_mm: int | None = None
    sigma_mm: int | None = None
    quality: str | None = None
    temperature_dc: int | None = None
    battery_pct: int | None = None
    flags: int | None = None
    backlog: int | None = None
    fill_pct: float | None = None
    # of a lamp
    level_pct: int | None = None
    reason: str | None = None
    faults: int | None = None
    outcome: str | None = None
    burn_min: int | None = None
    command_no: int | None = None


@dataclass(frozen=True)
class Loss:
    """Numbers that will never come, and why; last_seq None: an open-ended tail."""

    stream: Stream
    first_seq: int
    last_seq: int | None
    reason: str


class Payloads(Protocol):
    """Makes upstream messages; each returns (topic, payload)."""

    def reading(self, origin: Origin, reading: Reading, outbox_no: int) -> tuple[str, bytes]:
        """A reading's message."""

    def loss(self, origin: Origin, fields: dict[str, Any]) -> tuple[str, bytes]:
        """A loss record's message; fields: the columns of its row."""

    def numbered(self, payload: bytes, outbox_no: int) -> bytes:
        """A message with its place in the outbox, by which a consumer sees what it lacks."""

    def of_epoch(self, payload: bytes, gw_epoch: str) -> bytes:
        """A message that was made before, with the gw_epoch that it had before a restore."""

    def replayed(self, payload: bytes) -> bytes:
        """A message that was made before, marked as sent once more on request."""

    def found(self, origin: Origin, fields: dict[str, Any]) -> tuple[str, bytes]:
        """A message that takes a loss record back; fields: its range, reason and mark.

        gw_epoch: the one that the loss was said with, if it is not the present one.
        """

    def dropped(
        self, reading: tuple[Origin, int] | None, fields: dict[str, Any]
    ) -> tuple[str, bytes]:
        """A message that says which dead letter was given up."""

    def result(self, node_id: str, result: dict[str, Any]) -> tuple[str, bytes]:
        """A command result's message."""

    def alarm(self, node_id: str, alarm: dict[str, Any]) -> tuple[str, bytes]:
        """An alarm's message."""

    def restored(self, fields: dict[str, Any]) -> tuple[str, bytes]:
        """The message that says that a backup was restored, and which gw_epochs are over."""

    def anchor(self, anchor: dict[str, Any]) -> tuple[str, bytes]:
        """The message that ties a boot of the gateway to wall time."""
