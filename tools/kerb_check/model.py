"""The checker's own words: a reading's identity and content, a finding, a source that is broken.

Rule: contents are compared as plain dictionaries of the wire's field names, so that a reading
looks the same whichever source it was read from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kerb_wire import records, words


class Identity(NamedTuple):
    """(node_id as 12 hex digits, epoch u32, seq u32): what makes a reading that reading."""

    node: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.node}/{self.epoch}/{self.seq}"


class SourceError(Exception):
    """A source cannot be read as a whole; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the contract says; `unaccounted` counts towards the verdict."""

    kind: str
    subject: str
    detail: str
    unaccounted: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass
class Reading:
    """A reading as one source holds it; `content` maps field names to plain values."""

    identity: Identity
    content: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)


OPEN_END = 2**32 - 1  # the last_seq of a tail, which has none: it declares all from its first one


@dataclass(frozen=True)
class Loss:
    """An explicit loss record: every number from first_seq to last_seq, and why.

    id, gateway: what the message calls it, and who said it.
    """

    node: str
    epoch: int
    first_seq: int
    last_seq: int
    reason: str
    id: str = ""
    gateway: str = ""

    @property
    def is_tail(self) -> bool:
        """Whether it is open-ended, until the next contact closes it."""
        return self.last_seq == OPEN_END

    def covers(self, identity: Identity) -> bool:
        """Tell whether this record declares `identity` lost."""
        same_stream = (self.node, self.epoch) == (identity.node, identity.epoch)
        return same_stream and self.first_seq <= identity.seq <= self.last_seq


@dataclass(frozen=True)
class Found:
    """A loss record taken back; `of` is its id."""

    of: str
    node: str
    epoch: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True)
class Dropped:
    """A dead letter with a reading that a person gave up."""

    identity: Identity


FILL_FIELDS = (
    "distance_mm",
    "sigma_mm",
    "quality",
    "temperature_c",
    "battery_pct",
    "event",
    "flags",
    "backlog",
)
LAMP_FIELDS = ("level_pct", "reason", "faults", "outcome", "burn_min", "command_no", "event")
TIME_FIELDS = ("boot_no", "uptime_s")


def content_of(row: Any) -> dict[str, Any]:
    """Return the content of an unpacked FILL or LAMP record in the upstream payload's words."""
    base = {"boot_no": row.boot_no, "uptime_s": row.uptime_s}
    if row.kind == records.FILL:
        tenths = _or_none(row.temperature_dc, records.NO_TEMPERATURE)
        return base | {
            "kind": "fill",
            "distance_mm": _or_none(row.distance_mm, records.NO_DISTANCE),
            "sigma_mm": row.sigma_mm,
            "quality": words.QUALITIES[row.quality],
            "temperature_c": None if tenths is None else tenths / 10,
            "battery_pct": _or_none(row.battery_pct, records.NO_BATTERY),
            "event": words.EVENTS[row.event],
            "flags": row.flags,
            "backlog": row.backlog,
        }
    outcome = records.lamp_outcome(row)
    return base | {
        "kind": "lamp",
        "level_pct": row.level_pct,
        "reason": words.REASONS[row.reason],
        "faults": row.faults,
        "event": words.EVENTS[records.lamp_event(row)],
        "outcome": words.OUTCOMES[outcome],
        "burn_min": row.burn_min,
        "command_no": row.command_no,
    }


def _or_none(value: int, none: int) -> int | None:
    return None if value == none else value


def differences(left: dict[str, Any], right: dict[str, Any], *, times: bool) -> list[str]:
    """Return the fields in which two contents differ, as "name a != b".

    times: compare boot_no and uptime_s too (an advert does not carry them).
    """
    kind = left.get("kind")
    if kind != right.get("kind"):
        return [f"kind {kind!r} != {right.get('kind')!r}"]
    names: tuple[str, ...] = FILL_FIELDS if kind == "fill" else LAMP_FIELDS
    if times:
        names = names + TIME_FIELDS
    return [
        f"{name} {left.get(name)!r} != {right.get(name)!r}"
        for name in names
        if not _same(name, left.get(name), right.get(name))
    ]


_NOTHING = {"outcome": "none", "command_no": 0}  # how a record says "no command ended here"


def _same(name: str, left: Any, right: Any) -> bool:
    if name in _NOTHING:
        left = _NOTHING[name] if left is None else left
        right = _NOTHING[name] if right is None else right
    if isinstance(left, float) or isinstance(right, float):
        return left is not None and right is not None and abs(left - right) < 0.05
    return bool(left == right)
