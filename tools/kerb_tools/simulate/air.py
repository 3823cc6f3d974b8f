"""The radio between bins and a gateway's adapters, and those who misuse it.

Rule: an advert may be lost, heard twice, kept back, replayed or forged; a connection may fail to
come about or break at any frame, before or after the node has acted on it.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from kerb_gateway.errors import LinkError
from kerb_gateway.model import Heard
from kerb_wire.limits import SESSION_TIMEOUT_MS

from kerb_tools.simulate.bin import Advert, Bin
from kerb_tools.simulate.dialogue import Dialogue

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Street

_RSSI_DBM = (-85, -60)
_FRAME_S = 0.03
_CONNECT_S = (0.2, 1.5)
_IN_VAIN_S = (1.0, 9.0)


class Air:
    """Everything that is on the air."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self._random = random
        self.heard = 0

    def transmit(self, node: Bin, advert: Advert) -> None:
        """A bin's advert goes out."""
        node.history.append(advert)
        if node.away_until_s > self._street.timeline.now_s:
            return
        odds, draw = self._street.odds, self._random.random()
        if not self._street.calm and draw < odds.held:
            self._street.timeline.after(self._random.uniform(600, 10800), self._late, node, advert)
            return
        for house in self._street.houses:
            if house.adapters:
                self._to(house, node, advert, twin=draw > 1 - odds.twin)

    def _to(self, house: House, node: Bin, advert: Advert, *, twin: bool) -> None:
        """It reaches the adapters of one gateway, or some of them."""
        data = advert.data
        self._street.tailbook.advert(house, node.node_id, advert.epoch, advert.seq)
        if self._street.calm:
            house.adapters[0].hear(node, data)
        elif twin:
            house.adapters[0].hear(node, data)
            house.adapters[0].hear(node, node.twin())
        else:
            for adapter, chance in zip(house.adapters, self._street.odds.heard, strict=True):
                if self._random.random() < chance:
                    adapter.hear(node, data)

    def _late(self, node: Bin, advert: Advert) -> None:
        self._street.truth.kept_back.add((node.node_id, advert.epoch, advert.seq))
        for adapter in self._anybody():
            adapter.hear_again(node, advert)

    def _anybody(self) -> list[Adapter]:
        """Return one adapter near which somebody stands, of a gateway that is alive."""
        adapters = [one for house in self._street.houses for one in house.adapters]
        return [self._random.choice(adapters)] if adapters else []

    def replay(self, node: Bin) -> None:
        """Somebody sends an old advert again, more often a young one than an old one."""
        if not node.history:
            return
        age = int(len(node.history) * self._random.random() ** 2)
        advert = node.history[-1 - age]
        self._street.truth.kept_back.add((node.node_id, advert.epoch, advert.seq))
        for adapter in self._anybody():
            adapter.hear_again(node, advert)

    def forge(self, node: Bin) -> None:
        """Somebody sends an advert with a number, a byte or everything changed."""
        if not node.history:
            return
        data = bytearray(node.history[-1].data)
        kind = self._random.randrange(3)
        if kind == 0:
            data[-8] = (data[-8] + 1 + self._random.randrange(200)) & 0xFF
        elif kind == 1:
            data[self._random.randrange(1, len(data) - 8)] ^= 1 << self._random.randrange(8)
        else:
            data[1:] = self._random.randbytes(len(data) - 1)
        for adapter in self._anybody():
            adapter.hear(node, bytes(data))


class Adapter:
    """What the gateway takes for a Bluetooth link."""

    def __init__(self, house: House, name: str, random: Random) -> None:
        self.adapter = name
        self.queue: asyncio.Queue[Heard] = asyncio.Queue()
        self._house = house
        self._street = house.street
        self._random = random

    async def scan(self) -> None:
        """Scan for ever."""
        await asyncio.Event().wait()

    def hear(self, node: Bin, data: bytes) -> None:
        """Hand an advert over."""
        self._street.air.heard += 1
        self._street.owners.heard(self._house, node.node_id)
        rssi = self._random.randint(*_RSSI_DBM)
        self.queue.put_nowait(
            Heard(
                node.address_text,
                data,
                rssi,
                self.adapter,
                self._house.machine.boottime_ms(),
                node,
            )
        )

    def hear_again(self, node: Bin, advert: Advert) -> None:
        """Hear what somebody has kept back or written down."""
        self._street.tailbook.advert(self._house, node.node_id, advert.epoch, advert.seq)
        self.hear(node, advert.data)

    def converse(self, heard: Heard) -> Connection:
        """Connect to the node just heard."""
        return Connection(self._house, heard.handle, self._random)


class Connection:
    """A connection that carries whole frames, as long as it holds."""

    def __init__(self, house: House, node: Bin, random: Random) -> None:
        self._house = house
        self._street = house.street
        self._node = node
        self._random = random
        self._answers: list[bytes] = []
        self._dialogue: Dialogue | None = None
        self._until_s = 0.0

    async def __aenter__(self) -> Connection:
        self._street.owners.visit(self._house, self._node.node_id)
        unlucky = not self._street.calm and self._random.random() < self._street.odds.no_connection
        if unlucky or not self._node.lets_in():
            self._street.owners.left(self._house, self._node.node_id, well=False)
            await asyncio.sleep(self._random.uniform(*_IN_VAIN_S))
            raise LinkError("no connection")
        await asyncio.sleep(self._random.uniform(*_CONNECT_S))
        self._street.owners.entered(self._house, self._node.node_id)
        self._dialogue = self._node.dialogue(self._house)
        self._until_s = self._street.timeline.now_s + SESSION_TIMEOUT_MS / 1000
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._street.owners.left(self._house, self._node.node_id, well=kind is None)
        self._dialogue = None

    async def send(self, frame: bytes) -> None:
        """Carry a frame to the node and its answers back, or break before or behind the node."""
        await asyncio.sleep(_FRAME_S)
        if self._dialogue is None or self._street.timeline.now_s > self._until_s:
            raise LinkError("the node has gone")
        broken = not self._street.calm and self._random.random() < self._street.odds.broken
        if broken and self._random.random() < 0.5:
            self._dialogue = None
            raise LinkError("the connection broke")
        answers = self._dialogue.feed(frame)
        if broken:
            answers = answers[: self._random.randrange(len(answers) + 1)]
            self._dialogue = None
        self._answers += answers

    async def receive(self, timeout_s: float) -> bytes:
        """Return the next frame."""
        if not self._answers:
            await asyncio.sleep(timeout_s)
            raise LinkError("no answer in time")
        return self._answers.pop(0)
