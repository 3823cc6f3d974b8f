"""Readings for the benches: nodes, keys and adverts, as many as asked for, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kerb_gateway.clock import SystemClock
from kerb_gateway.crypto import new_ecb
from kerb_gateway.model import Heard, Node
from kerb_wire import advert, bthome, keys, records
from kerb_wire.provisioning import address_of
from kerb_wire.words import FLAG_CONNECTABLE

EPOCH = 0x1234567


def nodes(count: int, seed: int) -> list[Node]:
    """Return bins with keys of their own."""
    rng = random.Random(seed)
    return [Node(n, f"a4cf{n:08x}", "bin", rng.randbytes(16), None) for n in range(1, count + 1)]


def record(seq: int, rng: random.Random, flags: int = FLAG_CONNECTABLE) -> bytes:
    """Return one packed fill record."""
    distance_mm = rng.randrange(300, 2500)
    return records.pack_fill(
        1, seq, seq * 900, distance_mm, 3, 0, rng.randrange(-100, 350), 90, 0, 7, 7,
        flags, 3,
    )  # fmt: skip


class Sender:
    """One node's adverts, as an adapter hears them."""

    def __init__(self, node: Node, seed: int) -> None:
        self._ecb = new_ecb(keys.advert_key(new_ecb, node.root_key, EPOCH))
        self._address = address_of(bytes.fromhex(node.node_id))
        self._text = ":".join(f"{octet:02X}" for octet in self._address)
        self._rng = random.Random(seed)
        self._clock = SystemClock()
        self._seq = 0

    def next(self) -> Heard:
        """Return the next number's advert."""
        self._seq += 1
        objects = advert.objects_of(records.unpack(record(self._seq, self._rng)), EPOCH)
        data = bthome.seal(self._ecb, self._address, self._seq, objects)
        return Heard(self._text, data, -70, "hci0", self._clock.boottime_ms())


def rounds(senders: list[Sender], count: int) -> Iterator[Heard]:
    """Yield `count` adverts, one node after the other."""
    for number in range(count):
        yield senders[number % len(senders)].next()
