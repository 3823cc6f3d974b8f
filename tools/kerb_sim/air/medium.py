"""The radio medium: stations advertise, listeners hear or miss it, a central connects.

Rule: pure asyncio; it knows nothing of D-Bus or of boards. Losses come from a seeded generator
and from the fault plan's policy, and every one of them is counted.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

ATT_MTU_DEFAULT_BYTES = 23
_CENTRAL_MTU_BYTES = 517  # what BlueZ proposes
_NOTIFY_QUEUE = 6  # NimBLE's buffers on the port: beyond them notify raises ENOMEM
_PACKET_S = 0.004
_CONNECT_TRIES_S = 0.02
ENOMEM = 12
ENOTCONN = 128


@dataclass(frozen=True)
class Advert:
    """One advertising event as a listener hears it."""

    address: str
    data: bytes
    rssi: int
    connectable: bool


@dataclass
class Characteristic:
    """uuid, property bits as on the port (0x02 read ... 0x10 notify) and the value's handle."""

    uuid: str
    flags: int
    handle: int


@dataclass
class Service:
    """A GATT service of a station."""

    uuid: str
    characteristics: list[Characteristic]


class Station:
    """A peripheral on the air; a virtual board's radio derives from it."""

    def __init__(self, address: str, rssi: int = -70) -> None:
        self.address = address
        self.rssi = rssi
        self.connectable = False
        self.mtu = ATT_MTU_DEFAULT_BYTES
        self.services: list[Service] = []
        self.connection: Connection | None = None

    def on_connect(self, connection: Connection) -> None:
        """A central has connected."""

    def on_disconnect(self, connection: Connection) -> None:
        """The connection is gone, whoever ended it."""

    def on_mtu(self, connection: Connection, mtu_bytes: int) -> None:
        """The ATT MTU was agreed."""

    def on_write(self, connection: Connection, handle: int, data: bytes) -> None:
        """The central wrote a value."""


@dataclass
class Connection:
    """One link between a central and a station; packets take their time, queues are bounded."""

    number: int
    station: Station
    central: str
    mtu: int
    on_notify: Callable[[int, bytes], None] = lambda handle, data: None
    on_close: Callable[[], None] = lambda: None
    open: bool = True
    _queue: deque[tuple[int, bytes]] = field(default_factory=deque)
    _drain: asyncio.Task[None] | None = None

    def notify(self, handle: int, data: bytes) -> None:
        """Queue a notification; OSError(ENOMEM) when the station's buffers are full."""
        if not self.open:
            raise OSError(ENOTCONN, "not connected")
        if len(self._queue) >= _NOTIFY_QUEUE:
            raise OSError(ENOMEM, "no buffer for a notification")
        self._queue.append((handle, data[: self.mtu - 3]))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        while self._queue and self.open:
            await asyncio.sleep(_PACKET_S)
            if self._queue:
                self.on_notify(*self._queue.popleft())

    async def write(self, handle: int, data: bytes) -> None:
        """Write a value from the central's side."""
        await asyncio.sleep(_PACKET_S)
        if not self.open:
            raise OSError(ENOTCONN, "not connected")
        self.station.on_write(self, handle, data)

    def close(self) -> None:
        """End the link; both sides are told once."""
        if not self.open:
            return
        self.open = False
        self.station.connection = None
        self.station.on_disconnect(self)
        self.on_close()


class Air:
    """All stations and listeners of one street."""

    def __init__(self, seed: int, loss: float = 0.0) -> None:
        """loss: probability that one listener misses one advertising event."""
        self._random = random.Random(seed)
        self._loss = loss
        self._stations: dict[str, Station] = {}
        self._listeners: dict[str, Callable[[Advert], None]] = {}
        self._number = 0
        self.policy: Callable[[str, bytes], bool] = lambda address, data: False
        self.deaf: set[str] = set()
        self.counts: Counter[str] = Counter()

    def join(self, station: Station) -> None:
        """Put a station on the air."""
        self._stations[station.address] = station

    def leave(self, station: Station) -> None:
        """Take a station off the air; its connection breaks."""
        if station.connection is not None:
            station.connection.close()
        self._stations.pop(station.address, None)

    def listen(self, adapter: str, hear: Callable[[Advert], None] | None) -> None:
        """Set, or with None remove, what an adapter does with the adverts it hears."""
        if hear is None:
            self._listeners.pop(adapter, None)
        else:
            self._listeners[adapter] = hear

    def advertise(self, station: Station, data: bytes) -> None:
        """Send one advertising event of a station to every listener that does not miss it."""
        self.counts["events"] += 1
        if self.policy(station.address, data):
            self.counts["dropped by the plan"] += 1
            return
        self.inject(Advert(station.address, data, station.rssi, station.connectable))

    def inject(self, advert: Advert, adapter: str | None = None) -> None:
        """Put any advert on the air, a forged or replayed one too."""
        for name, hear in list(self._listeners.items()):
            if name in self.deaf or adapter not in (None, name):
                continue
            if self._random.random() < self._loss:
                self.counts["missed"] += 1
                continue
            noise = self._random.randint(-4, 4)
            self.counts["heard"] += 1
            hear(Advert(advert.address, advert.data, advert.rssi + noise, advert.connectable))

    async def connect(self, address: str, central: str, timeout_s: float) -> Connection:
        """Connect to a station that advertises connectable within timeout_s; TimeoutError else."""
        async with asyncio.timeout(timeout_s):
            station = await self._reach(address)
        self._number = self._number % 0xFFFF + 1
        mtu = max(ATT_MTU_DEFAULT_BYTES, min(_CENTRAL_MTU_BYTES, station.mtu))
        connection = Connection(self._number, station, central, mtu)
        station.connection = connection
        station.connectable = False
        station.on_connect(connection)
        station.on_mtu(connection, mtu)
        return connection

    async def _reach(self, address: str) -> Station:
        """Wait until a station takes a connection."""
        while True:
            if self._takes(address):
                # From the advert that is answered to the first data packet: some intervals.
                await asyncio.sleep(self._random.uniform(0.03, 0.12))
                if self._takes(address):  # it may have gone to sleep, or taken another central
                    return self._stations[address]
            await asyncio.sleep(_CONNECT_TRIES_S)

    def _takes(self, address: str) -> bool:
        station = self._stations.get(address)
        return station is not None and station.connectable and station.connection is None
