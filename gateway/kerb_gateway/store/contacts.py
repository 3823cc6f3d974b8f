"""Each stream's contacts with its node's clock: in memory all, on disk the newest of a few boots.

Rule: contacts only make ranges narrower, so losing some to a kill makes no range wrong; they are
stored with a batch at most once an hour, which costs the card next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from kerb_gateway.model import Stream
from kerb_gateway.store.database import Many, Operation, Store
from kerb_gateway.timeline import AWAKE_DRIFT, MAKING_MS, SLEEPING_DRIFT, Contact, Timeline

STORE_EVERY_MS = 3600_000
_BOOTS_KEPT = 4  # pairs of (boot of the gateway, boot of the node) that each stream keeps on disk

Key = tuple[str, int]


class Contacts:
    """The timelines, by stream."""

    def __init__(self) -> None:
        self._timelines: dict[int, Timeline] = {}
        self._written: dict[int, dict[Key, Contact]] = {}
        self._changed: set[int] = set()
        self._stored_at: tuple[str, int] | None = None

    @classmethod
    async def load(cls, store: Store, streams: Iterable[Stream]) -> Contacts:
        """Read what the last run has left, in its order."""
        known = cls()
        by_no = {stream.stream_no: stream for stream in streams}
        for stream_no, boot_id, *numbers in await store.query(
            "select stream_no, boot_id, node_boot_no, uptime_s, last_seq, asked_ms, answered_ms "
            "from contacts order by rowid"
        ):
            if stream_no in by_no:
                contact = Contact(boot_id, *numbers)
                known.of(by_no[stream_no]).contacts.append(contact)
                key = (boot_id, contact.node_boot_no)
                known._written.setdefault(stream_no, {})[key] = contact
        return known

    def of(self, stream: Stream) -> Timeline:
        """Return a stream's timeline."""
        timeline = self._timelines.get(stream.stream_no)
        if timeline is None:
            sleeps = stream.node.role != "lamp"
            timeline = Timeline(
                SLEEPING_DRIFT if sleeps else AWAKE_DRIFT, MAKING_MS if sleeps else 0
            )
            self._timelines[stream.stream_no] = timeline
        return timeline

    def meet(self, stream: Stream, contact: Contact) -> bool:
        """Take a contact; False if the node's clock contradicts what it said before."""
        self._changed.add(stream.stream_no)
        return self.of(stream).meet(contact)

    def due(self, boot_id: str, now_ms: int, *, at_once: bool = False) -> list[Operation]:
        """Return what stores the contacts, once an hour, or nothing."""
        if self._stored_at is None:
            self._stored_at = (boot_id, now_ms)
        since_ms = now_ms - self._stored_at[1]
        if not self._changed or not (at_once or since_ms >= STORE_EVERY_MS):
            return []
        self._stored_at = (boot_id, now_ms)
        gone: list[list[object]] = []
        fresh: list[list[object]] = []
        for stream_no in sorted(self._changed):
            kept = _newest(self._timelines[stream_no].contacts)
            before = self._written.get(stream_no, {})
            gone += [[stream_no, *key] for key in before if before[key] != kept.get(key)]
            fresh += [_row(stream_no, kept[k]) for k in kept if before.get(k) != kept[k]]
            self._written[stream_no] = kept
        self._changed.clear()
        return [
            Many(
                "delete from contacts where stream_no = ? and boot_id = ? and node_boot_no = ?",
                gone,
            ),
            Many("insert into contacts values (?,?,?,?,?,?,?)", fresh),
        ]


def _newest(contacts: list[Contact]) -> dict[Key, Contact]:
    """Return the newest contact of each of the last few pairs of boots, the oldest pair first."""
    found: dict[Key, Contact] = {}
    for contact in reversed(contacts):
        key = (contact.boot_id, contact.node_boot_no)
        if key not in found and len(found) < _BOOTS_KEPT:
            found[key] = contact
    return dict(reversed(found.items()))


def _row(stream_no: int, contact: Contact) -> list[object]:
    return [
        stream_no,
        contact.boot_id,
        contact.node_boot_no,
        contact.uptime_s,
        contact.last_seq,
        contact.asked_ms,
        contact.answered_ms,
    ]
