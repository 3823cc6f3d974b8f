"""When a reading was made: a node's clock pinned to the gateway's clock that never jumps.

Rule: a range is made of bounds that must hold, never of what is likely; where bounds contradict
each other, the weaker evidence (the node's clock) is dropped and that is counted. Pure.

A time lies on the boottime axis of one boot of the gateway (its boot_id, milliseconds of
CLOCK_BOOTTIME); it may lie before that boot began, and then it is negative. What bounds it:

- a contact of the same boot of the node: its uptime now, the reading's uptime, and how far the
  two clocks may drift apart;
- order: the node names its newest number at each contact, so what is newer was made later; and a
  number that was heard on the air had been made;
- boots: one boot of the node is over before the next begins.

An advert says only its number. It is on the air only in the wake that made it (in service mode in
many), so it was made at most age_ms before it was first heard. Who jams an advert and sends it
again later breaks that one bound: docs/threat-model.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

# A bin counts its sleep by the ESP32's 150 kHz RC oscillator, calibrated at each wake. Users
# report +23 s an hour (0.6 %), 20 minutes in 15 hours (2.2 %, espressif/arduino-esp32 issue 7084)
# and over half an hour in 10 (5 %, esp32.com); this is twice the worst.
SLEEPING_DRIFT = 0.10
# A lamp never sleeps: two quartzes of at most 100 ppm each, and 500 ppm by which the kernel's
# adjtimex(2) may slew the gateway's clock.
AWAKE_DRIFT = 0.001
# From the first ping to the record's stamp: the longest burst takes 2.7 s (kerb_wire's settings)
MAKING_MS = 3000
# What an advert may be older than the node's door is open: the making, two strangers that the
# door outlasts (3 s to their first byte, 1 s to prove themselves, each), 2 s through BlueZ to us.
_ADVERT_SLACK_MS = MAKING_MS + 2 * (3000 + 1000) + 2000
DOOR_S = 2.0  # a node's connect_window_ms, unless the configuration says otherwise
# BlueZ forgets an unpaired device after 30 s; till then any change of it brings its last advert.
STALE_MS = 30_000
_USUAL_ADVERT_MS = 500  # from the last ping to the first hearing, on a bench

CONTACTS_MOST = 16
_KEPT_NEWEST = 4  # contacts that are never thinned out: they stand around the gaps of today
_HEARD_MOST = 64


@dataclass(frozen=True)
class Contact:
    """A node's clock, asked between asked_ms and answered_ms; last_seq: its newest number then."""

    boot_id: str
    node_boot_no: int
    uptime_s: int
    last_seq: int
    asked_ms: int
    answered_ms: int


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """What a record says of its time."""

    seq: int
    node_boot_no: int
    uptime_s: int


class Span(msgspec.Struct, frozen=True, gc=False):
    """A reading was made from t_min_ms to t_max_ms of this boot, probably at t_ms; None: open."""

    boot_id: str
    t_min_ms: int | None
    t_ms: int | None
    t_max_ms: int

    @property
    def width_ms(self) -> int:
        """Its length in milliseconds; 0 where it is open."""
        return 0 if self.t_min_ms is None else self.t_max_ms - self.t_min_ms


# Where a moment of one boot lies on another boot's axis: (earliest, latest), or None: unknown.
Mapping = Callable[[str, int, str], tuple[int, int] | None]


def no_mapping(boot_id: str, t_ms: int, axis: str) -> tuple[int, int] | None:
    """Know nothing of how the gateway's boots lie to each other."""
    return None


def advert_age_ms(door_ms: int) -> int:
    """Return how old an advert can be when it is first heard; door_ms: how long it is sent."""
    return door_ms + _ADVERT_SLACK_MS


class _Bounds:
    """A range that only gets narrower."""

    def __init__(self) -> None:
        self.low: float | None = None
        self.high: float | None = None

    def at_least(self, value: float) -> None:
        self.low = value if self.low is None else max(self.low, value)

    def at_most(self, value: float) -> None:
        self.high = value if self.high is None else min(self.high, value)

    @property
    def crossed(self) -> bool:
        return self.low is not None and self.high is not None and self.low > self.high


class Timeline:
    """What is known of the clock behind one stream of readings."""

    def __init__(self, drift: float, making_ms: int) -> None:
        """drift: how far the node's clock may run off, as a share; making_ms: see MAKING_MS."""
        self._drift = drift
        self._making_ms = making_ms
        self.contacts: list[Contact] = []  # in the order they were made
        self._heard: deque[tuple[int, int]] = deque(maxlen=_HEARD_MOST)
        self._heard_boot = ""
        self.contradictions = 0

    # --- what is learnt ---

    def meet(self, contact: Contact) -> bool:
        """Take a contact; False if the node's clock contradicts the one before it.

        Then the boot number has come round, or the clock is broken: what it said is forgotten.
        """
        agrees = not self.contacts or self._agree(self.contacts[-1], contact)
        if not agrees:
            self.contradictions += 1
            self.contacts = [
                one for one in self.contacts if one.node_boot_no != contact.node_boot_no
            ]
        self.contacts.append(contact)
        if len(self.contacts) > CONTACTS_MOST:
            self._thin()
        return agrees

    def _agree(self, before: Contact, after: Contact) -> bool:
        if (before.boot_id, before.node_boot_no) != (after.boot_id, after.node_boot_no):
            return True
        low, high = self._cone(before, after.uptime_s)
        return low <= after.answered_ms and high >= after.asked_ms

    def _thin(self) -> None:
        """Drop the contact whose neighbours stand closest, or else the oldest."""
        best, at = None, 0
        for index in range(1, len(self.contacts) - _KEPT_NEWEST):
            before, one, after = self.contacts[index - 1 : index + 2]
            clocks = {(each.boot_id, each.node_boot_no) for each in (before, one, after)}
            apart_ms = after.asked_ms - before.asked_ms
            if len(clocks) == 1 and (best is None or apart_ms < best):
                best, at = apart_ms, index
        del self.contacts[at]

    def heard(self, seq: int, boot_id: str, at_ms: int) -> None:
        """Note that a number, which rises, was heard on the air."""
        if boot_id != self._heard_boot:
            self._heard.clear()
            self._heard_boot = boot_id
        self._heard.append((seq, at_ms))

    # --- what follows ---

    def advert(
        self, seq: int, boot_id: str, heard_ms: int, age_ms: int, *, repeated: bool
    ) -> Span:
        """Return when a reading was made that an advert has just brought.

        repeated: it may have been on the air for hours, as it is in service mode.
        """
        bounds = _Bounds()
        for contact in self.contacts:
            if contact.boot_id == boot_id and seq > contact.last_seq:
                bounds.at_least(contact.asked_ms)
        if not repeated:
            bounds.at_least(heard_ms - age_ms)
        low = bounds.low
        if low is None:
            return Span(boot_id, None, heard_ms - _USUAL_ADVERT_MS, heard_ms)
        # A number that was used after a contact and heard before it: an answer from elsewhere.
        t_min_ms = min(int(low), heard_ms)
        return Span(boot_id, t_min_ms, max(t_min_ms, heard_ms - _USUAL_ADVERT_MS), heard_ms)

    def place(
        self, stamp: Stamp, boot_id: str, now_ms: int, mapping: Mapping = no_mapping
    ) -> Span:
        """Return when a record was made that has just been fetched.

        boot_id, now_ms: this moment; mapping: how the gateway's boots lie to each other. This
        boot's axis comes first: it can still be anchored, which a boot that is over cannot.
        """
        if not self.contacts and boot_id != self._heard_boot:  # a Wi-Fi node: the usual case
            return Span(boot_id, None, None, now_ms)
        here = self._on_axis(stamp, boot_id, now_ms, mapping)
        if here is not None and here.t_min_ms is not None:
            return here
        elsewhere = {
            one.boot_id: self._on_axis(stamp, one.boot_id, None, mapping)
            for one in self.contacts
            if one.node_boot_no == stamp.node_boot_no and one.boot_id != boot_id
        }
        closed = [one for one in elsewhere.values() if one is not None and one.width_ms]
        if closed:
            return min(closed, key=lambda span: span.width_ms)
        return here or Span(boot_id, None, None, now_ms)

    def _on_axis(
        self, stamp: Stamp, axis: str, now_ms: int | None, mapping: Mapping
    ) -> Span | None:
        """Return the span on one boot's axis, or None where it has no end there."""
        contacts = [one for one in self._moved(axis, mapping) if one is not None]
        bounds = self._by_order(stamp, axis, now_ms, contacts)
        same = [one for one in contacts if one.node_boot_no == stamp.node_boot_no]
        clock = self._by_clock(stamp, bounds, same)
        if clock.crossed:
            self.contradictions += 1
            same, clock = [], bounds
        if clock.high is None:
            return None
        high = int(clock.high)
        if clock.low is None or clock.crossed:
            return Span(axis, None, None, high)
        # Whole milliseconds, cut outwards.
        low, high = int(clock.low // 1), -int(-clock.high // 1)
        guess = _interpolated(stamp, same)
        t_ms = (low + high) // 2 if guess is None else min(max(round(guess), low), high)
        return Span(axis, low, t_ms, high)

    def _moved(self, axis: str, mapping: Mapping) -> Iterable[Contact | None]:
        """Yield the contacts on one axis; None for what cannot be brought there."""
        for contact in self.contacts:
            if contact.boot_id == axis:
                yield contact
                continue
            asked = mapping(contact.boot_id, contact.asked_ms, axis)
            answered = mapping(contact.boot_id, contact.answered_ms, axis)
            if asked is None or answered is None:
                yield None
            else:
                yield replace(contact, boot_id=axis, asked_ms=asked[0], answered_ms=answered[1])

    def _by_order(
        self, stamp: Stamp, axis: str, now_ms: int | None, contacts: list[Contact]
    ) -> _Bounds:
        """Bound by what was made before and after, whatever the node's clock says."""
        bounds = _Bounds()
        if now_ms is not None:
            bounds.at_most(now_ms)
        if axis == self._heard_boot:
            later = [at_ms for seq, at_ms in self._heard if seq >= stamp.seq]
            if later:
                bounds.at_most(min(later))
        for contact in contacts:
            if stamp.seq > contact.last_seq:
                bounds.at_least(contact.asked_ms)
            else:
                bounds.at_most(contact.answered_ms)
        return bounds

    def _by_clock(self, stamp: Stamp, order: _Bounds, same: list[Contact]) -> _Bounds:
        """Narrow by what the node's clock said in the same boot."""
        bounds = _Bounds()
        bounds.low, bounds.high = order.low, order.high
        for contact in same:
            low, high = self._cone(contact, stamp.uptime_s)
            bounds.at_least(low - self._making_ms)
            bounds.at_most(high)
        return bounds

    def _cone(self, contact: Contact, uptime_s: int) -> tuple[float, float]:
        """Return when (earliest, latest) the node's uptime was uptime_s, cut to whole seconds.

        Both uptimes are cut, so what lies between them is their difference and a second each way.
        """
        passed_ms = 1000 * (uptime_s - contact.uptime_s)
        return (
            contact.asked_ms + self._least(passed_ms - 1000),
            contact.answered_ms - self._least(-passed_ms - 1000),
        )

    def _least(self, node_ms: int) -> float:
        """Return the least true time in which the node's clock goes on by node_ms."""
        return node_ms / (1 + self._drift if node_ms >= 0 else 1 - self._drift)


def _interpolated(stamp: Stamp, same: list[Contact]) -> float | None:
    """Return the likeliest time by the contacts of the same boot, or None without any."""
    before = [one for one in same if one.uptime_s <= stamp.uptime_s]
    after = [one for one in same if one.uptime_s >= stamp.uptime_s]
    if not before and not after:
        return None
    first = max(before, key=lambda one: one.uptime_s, default=None)
    last = min(after, key=lambda one: one.uptime_s, default=None)
    if first is None or last is None or first.uptime_s == last.uptime_s:
        known = first or last
        assert known is not None
        return _middle(known) + 1000 * (stamp.uptime_s - known.uptime_s)
    rate = (_middle(last) - _middle(first)) / (last.uptime_s - first.uptime_s)
    return _middle(first) + rate * (stamp.uptime_s - first.uptime_s)


def _middle(contact: Contact) -> float:
    return (contact.asked_ms + contact.answered_ms) / 2
