"""A bin: wakes, measures, stores, advertises, and opens its door now and then.

Rule: the record is in the ring before its advert is on the air, and the advert of one number
always has the same bytes.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from kerb_gateway.crypto import new_ecb
from kerb_wire import advert, bthome, keys, provisioning, records
from kerb_wire.words import EVENTS, FLAG_CONNECTABLE, FLAG_SERVICE, ROLES, code

from kerb_tools.simulate.dialogue import Dialogue
from kerb_tools.simulate.nodeclock import SLEEPING, NodeClock
from kerb_tools.simulate.nodelog import NodeLog

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Street

WAKE_S = 900.0
_DRAIN_WAKE_S = 600.0
_RING_ROWS = 320  # a little more than three days
_DOOR_EVERY_WAKES = 40
_DOOR_BACKLOG = 150
_DOOR_S = 2.0
_HISTORY = 260  # adverts that somebody may have written down
_EVENT_ODDS = 0.004
_ROW: Any = records.FILL_LAYOUT.Row
_RECORD = struct.Struct("<BBHIIHBBhBBBBBB")  # what FILL_LAYOUT packs, which checks every field
_INFO = struct.pack("<HB", bthome.UUID16, bthome.DEVICE_INFO_ENCRYPTED)
_PERIODIC = code(EVENTS, "periodic")
_BOOT = code(EVENTS, "boot")
_SERVICE = code(EVENTS, "service")
_TILT = code(EVENTS, "tilt")


_BURST_S = (0.2, 2.7)  # from the first echo to the record's stamp
_ON_AIR_S = (0.1, 0.9)  # from the stamp to the first hearing
_HELD_UP_S = (2.0, 11.0)  # the same, when strangers hold the door
_HELD_UP_ODDS = 0.05


@dataclass(frozen=True)
class Advert:
    """What somebody may have written down."""

    epoch: int
    seq: int
    data: bytes


class Bin:
    """One bin's state, and what it does at its moments."""

    role = "bin"

    def __init__(self, street: Street, node_id: str, root_key: bytes, random: Random) -> None:
        self.node_id = node_id
        self.root_key = root_key
        self.address = provisioning.address_of(bytes.fromhex(node_id))
        self.address_text = ":".join(f"{octet:02X}" for octet in self.address)
        self.history: deque[Advert] = deque(maxlen=_HISTORY)
        self.away_until_s = 0.0
        self._street = street
        self._random = random
        self.log = NodeLog(random.getrandbits(32), _RING_ROWS)
        self._key_of_epoch()
        self._clock = NodeClock(SLEEPING, random)
        self._booted = True
        self._wakes = 0
        self._acked_seq = 0
        self._door_until_s = 0.0

    def start(self) -> None:
        """Begin somewhere within the first interval."""
        self._street.timeline.after(self._random.uniform(0, WAKE_S), self.wake)

    def _key_of_epoch(self) -> None:
        key = keys.advert_key(new_ecb, self.root_key, self.log.epoch)
        self._cipher = AESCCM(key, tag_length=bthome.MIC_BYTES)

    # --- what befalls it ---

    def power_cut(self) -> None:
        """Its supply was gone for a moment."""
        self.log.power_cut()
        self._reboot()

    def brown_out(self) -> None:
        """Its supply was gone so often that its numbers are far ahead."""
        self.log.brown_out(self._random.randint(17, 22))
        self._reboot()

    def new_epoch(self) -> None:
        """Its NVS was lost."""
        self.log.new_epoch(self._random.getrandbits(32))
        self._key_of_epoch()
        self.history.clear()
        self._reboot()

    def forgets(self, epoch: int) -> bool:
        """Tell whether nobody can ask for an epoch's records: its log answers for all of them."""
        return False

    def _reboot(self) -> None:
        self._clock.boot(self._street.timeline.now_s)
        self._booted = True
        self._acked_seq = 0

    # --- a wake ---

    def wake(self) -> None:
        """One wake; the next is planned, unless the street has come to its rest."""
        street = self._street
        if street.resting:
            return
        self._wakes += 1
        held_up = self._random.random() < _HELD_UP_ODDS
        ago_s = self._random.uniform(*(_HELD_UP_S if held_up else _ON_AIR_S))
        row = self._store(self._event(), ago_s, self._random.uniform(*_BURST_S))
        if row.flags & FLAG_CONNECTABLE:
            self._door_until_s = street.timeline.now_s + _DOOR_S
        street.air.transmit(self, Advert(self.log.epoch, row.seq, self.sealed(row)))
        interval_s = _DRAIN_WAKE_S if street.calm else WAKE_S
        street.timeline.after(interval_s * self._random.uniform(0.97, 1.03), self.wake)

    def _store(self, event: int, ago_s: float, burst_s: float) -> Any:
        """Measure and store, so long ago, after a burst of echoes; return the record's row."""
        seq = self.log.take()
        stamp_s = max(self._clock.booted_s, self._street.timeline.now_s - ago_s)
        made_s = max(self._clock.booted_s, stamp_s - burst_s)
        row = self._measure(seq, event, stamp_s)
        record = _RECORD.pack(*row)
        self.log.append(seq, record)
        self._street.truth.measured(self.node_id, self.log.epoch, seq, record, made_s)
        return row

    def tilt(self) -> bytes:
        """It is moved while somebody is connected: return the record, which no advert follows."""
        return _RECORD.pack(*self._store(_TILT, 0.0, 0.0))

    def sealed(self, row: Any) -> bytes:
        """Return the advert's service data of a record, in one call instead of block by block."""
        objects = advert.objects_of_packed(_RECORD.pack(*row), self.log.epoch)
        counter = row.seq.to_bytes(bthome.COUNTER_BYTES, "little")
        text = self._cipher.encrypt(self.address + _INFO + counter, objects, None)
        mic_at = len(text) - bthome.MIC_BYTES
        return bytes(_INFO[-1:] + text[:mic_at] + counter + text[mic_at:])

    def twin(self) -> bytes:
        """Return another content under the newest number, as a broken node would send it."""
        row = self._measure(self.log.last_seq, _SERVICE, self._street.timeline.now_s)
        return self.sealed(row._replace(distance_mm=records.NO_DISTANCE, sigma_mm=255))

    def _event(self) -> int:
        if self._booted:
            self._booted = False
            return _BOOT
        if self._street.calm:
            return _SERVICE
        return _TILT if self._random.random() < _EVENT_ODDS else _PERIODIC

    def _measure(self, seq: int, event: int, stamp_s: float) -> Any:
        random = self._random
        backlog = min(255, seq - 1 - self._acked_seq)
        opens = (
            event != _PERIODIC or self._wakes % _DOOR_EVERY_WAKES == 0 or backlog >= _DOOR_BACKLOG
        )
        flags = FLAG_CONNECTABLE if opens else 0
        if event == _SERVICE:
            flags |= FLAG_SERVICE
        draw = random.random()
        distance_mm = int(200 + 1800 * draw)
        return _ROW(
            records.RECORD_VERSION,
            records.FILL,
            self._clock.boot_no,
            seq,
            self._clock.uptime_s(stamp_s),
            records.NO_DISTANCE if draw < 0.01 else distance_mm,
            distance_mm & 15,
            2 if draw < 0.01 else 0,
            150 + distance_mm % 100,
            distance_mm % 101,
            event,
            7,
            7,
            flags,
            backlog,
        )

    # --- visits ---

    def lets_in(self) -> bool:
        """Tell whether its door is open and it can be reached."""
        now_s = self._street.timeline.now_s
        return self.away_until_s <= now_s <= self._door_until_s

    def dialogue(self, house: House) -> Dialogue:
        """Return its side of a new connection."""
        if self._street.calm:
            return Dialogue(self, house, self._random)
        odds = self._street.odds
        repeats = self._random.random() < odds.repeats
        tilts = self._random.choice((1, 2)) if self._random.random() < odds.tilted else 0
        return Dialogue(self, house, self._random, repeats=repeats, tilts=tilts)

    def hello(self, nonce: bytes) -> tuple[object, ...]:
        """Return HelloNode's fields without the tag."""
        return (
            1,
            code(ROLES, "bin"),
            bytes.fromhex(self.node_id),
            self.log.epoch,
            nonce,
            self._clock.boot_no,
            self._clock.uptime_s(self._street.timeline.now_s),
            self.log.first_seq(),
            self.log.last_seq,
            self._acked_seq,
        )

    def acknowledge(self, house: House, epoch: int, seq: int) -> None:
        """A gateway says that it has everything up to `seq`."""
        house.judge.acknowledged(self.node_id, epoch, seq)
        if epoch == self.log.epoch and self._acked_seq < seq <= self.log.last_seq:
            self._acked_seq = seq
