"""A bin: wakes, measures, stores, advertises, and opens its door now and then.

Rule: the record is in the ring before its advert is on the air, and the advert of one number
always has the same bytes.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

from kerb_gateway.crypto import Ecb, new_ecb
from kerb_wire import advert, bthome, keys, provisioning, records
from kerb_wire.words import EVENTS, FLAG_CONNECTABLE, FLAG_SERVICE, ROLES, code

from kerb_tools.simulate.dialogue import Dialogue
from kerb_tools.simulate.nodelog import NodeLog

if TYPE_CHECKING:
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
_PERIODIC = code(EVENTS, "periodic")
_BOOT = code(EVENTS, "boot")
_SERVICE = code(EVENTS, "service")
_TILT = code(EVENTS, "tilt")


class Bin:
    """One bin's state, and what it does at its moments."""

    role = "bin"

    def __init__(self, street: Street, node_id: str, root_key: bytes, random: Random) -> None:
        self.node_id = node_id
        self.root_key = root_key
        self.address = provisioning.address_of(bytes.fromhex(node_id))
        self.address_text = ":".join(f"{octet:02X}" for octet in self.address)
        self.history: deque[bytes] = deque(maxlen=_HISTORY)
        self.away_until_s = 0.0
        self._street = street
        self._random = random
        self.log = NodeLog(random.getrandbits(32), _RING_ROWS)
        self._key_of_epoch()
        self._boot_no = 1
        self._booted_s = 0.0
        self._booted = True
        self._wakes = 0
        self._acked_seq = 0
        self._door_until_s = 0.0

    def start(self) -> None:
        """Begin somewhere within the first interval."""
        self._street.timeline.after(self._random.uniform(0, WAKE_S), self.wake)

    def _key_of_epoch(self) -> None:
        self._ecb: Ecb = new_ecb(keys.advert_key(new_ecb, self.root_key, self.log.epoch))

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

    def _reboot(self) -> None:
        self._boot_no = self._boot_no % 0xFFFF + 1
        self._booted_s = self._street.timeline.now_s
        self._booted = True
        self._acked_seq = 0

    # --- a wake ---

    def wake(self) -> None:
        """One wake; the next is planned, unless the street has come to its rest."""
        street = self._street
        if street.resting:
            return
        self._wakes += 1
        event = self._event()
        seq = self.log.take()
        row = self._measure(seq, event)
        record = records.FILL_LAYOUT.pack(*row)
        self.log.append(seq, record)
        street.judge.measured(self.node_id, self.log.epoch, seq, record)
        if row.flags & FLAG_CONNECTABLE:
            self._door_until_s = street.timeline.now_s + _DOOR_S
        street.air.transmit(self, self.sealed(row))
        interval_s = _DRAIN_WAKE_S if street.calm else WAKE_S
        street.timeline.after(interval_s * self._random.uniform(0.97, 1.03), self.wake)

    def sealed(self, row: Any) -> bytes:
        """Return the advert's service data of a record."""
        objects = advert.objects_of(row, self.log.epoch)
        return bthome.seal(self._ecb, self.address, row.seq, objects)

    def twin(self) -> bytes:
        """Return another content under the newest number, as a broken node would send it."""
        row = self._measure(self.log.last_seq, _SERVICE)
        return self.sealed(row._replace(distance_mm=records.NO_DISTANCE, sigma_mm=255))

    def _event(self) -> int:
        if self._booted:
            self._booted = False
            return _BOOT
        if self._street.calm:
            return _SERVICE
        return _TILT if self._random.random() < _EVENT_ODDS else _PERIODIC

    def _measure(self, seq: int, event: int) -> Any:
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
            self._boot_no,
            seq,
            int(self._street.timeline.now_s - self._booted_s),
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

    def dialogue(self) -> Dialogue:
        """Return its side of a new connection."""
        repeats = self._random.random() < self._street.odds.repeats
        return Dialogue(self, self._random, repeats and not self._street.calm)

    def hello(self, nonce: bytes) -> tuple[object, ...]:
        """Return HelloNode's fields without the tag."""
        return (
            1,
            code(ROLES, "bin"),
            bytes.fromhex(self.node_id),
            self.log.epoch,
            nonce,
            self._boot_no,
            int(self._street.timeline.now_s - self._booted_s),
            self.log.first_seq(),
            self.log.last_seq,
            self._acked_seq,
        )

    def acknowledge(self, epoch: int, seq: int) -> None:
        """A gateway says that it has everything up to `seq`."""
        self._street.judge.acknowledged(self.node_id, epoch, seq)
        if epoch == self.log.epoch and self._acked_seq < seq <= self.log.last_seq:
            self._acked_seq = seq
