"""Bins that are a few lines of Python: what they measured follows from seed, epoch and number.

Rule: the same number always has the same content, in an advert and in a record, as on a node.
"""

from __future__ import annotations

import random

from kerb_gateway.clock import Moment
from kerb_gateway.crypto import new_ecb
from kerb_gateway.model import Heard, Node
from kerb_wire import advert, bthome, keys, records
from kerb_wire.provisioning import address_of
from kerb_wire.words import FLAG_CONNECTABLE

_RECORD_S = 900


def nodes(count: int, seed: int) -> list[Node]:
    """Return bins with keys of their own."""
    rng = random.Random(seed)
    return [Node(n, f"a4cf{n:08x}", "bin", rng.randbytes(16), None) for n in range(1, count + 1)]


class ScriptedBin:
    """One node's side of the wire."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node = node
        self.epoch = 1
        self.seq = 0
        self._seed = seed
        self._address = address_of(bytes.fromhex(node.node_id))
        self._text = ":".join(f"{octet:02X}" for octet in self._address)

    def record(self, seq: int) -> bytes:
        """Return the packed record of a number."""
        rng = random.Random(f"{self._seed}/{self.node.node_id}/{self.epoch}/{seq}")
        return records.pack_fill(
            1, seq, seq * _RECORD_S, rng.randrange(300, 2500), 3, 0, rng.randrange(-100, 350), 90,
            0, 7, 7, FLAG_CONNECTABLE, 3,
        )  # fmt: skip

    def heard(self, seq: int, boottime_ms: int) -> Heard:
        """Return the advert of a number as an adapter hears it."""
        ecb = new_ecb(keys.advert_key(new_ecb, self.node.root_key, self.epoch))
        objects = advert.objects_of(records.unpack(self.record(seq)), self.epoch)
        data = bthome.seal(ecb, self._address, seq, objects)
        return Heard(self._text, data, -70, "hci0", boottime_ms)


class ScriptedClock:
    """A clock that goes on when it is told to."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self._now_ms = 1_000_000

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        self._now_ms += round(duration_s * 1000)

    def boottime_ms(self) -> int:
        """Milliseconds since the machine started."""
        return self._now_ms

    def now(self) -> Moment:
        """This moment."""
        return Moment(self.boot_id, self._now_ms, 1_700_000_000_000 + self._now_ms, "ntp")
