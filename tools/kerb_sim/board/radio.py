"""The board's radio on the air: what the bluetooth stand-in asks for, and what it is told.

Rule: one station a board; losing the power breaks everything at once, a disconnection that the
firmware asks for takes a connection interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kerb_sim.air.medium import Air, Characteristic, Connection, Service, Station

_INTERVAL_S = 0.04
_TOLD_S = 0.25  # a younger connection may not have reached the firmware yet


class BoardRadio(Station):
    """A Station whose events go to the firmware; `tell` takes (name, connection, detail)."""

    def __init__(
        self,
        address: str,
        air: Air,
        rssi: int,
        tell: Callable[..., Any],
        on_advert: Callable[[bytes], None],
    ) -> None:
        super().__init__(address, rssi)
        self._air = air
        self._tell = tell
        self._on_advert = on_advert
        self._advertising: asyncio.Task[None] | None = None
        self._connected_at = 0.0

    def power(self, on: bool) -> None:
        """Switch the radio on or off."""
        self.quiet()
        if on:
            self._air.join(self)
        else:
            self._air.leave(self)
            self.services = []

    def register(self, table: list[Any]) -> None:
        """Take the GATT table of the firmware."""
        self.services = [
            Service(uuid, [Characteristic(*row) for row in rows]) for uuid, rows in table
        ]

    def advertise(self, interval_us: int, data: bytes, connectable: bool) -> None:
        """Advertise until quiet() or until a central connects."""
        self.quiet()
        self.connectable = connectable
        self._advertising = asyncio.ensure_future(self._repeat(interval_us / 1e6, data))

    async def _repeat(self, interval_s: float, data: bytes) -> None:
        while True:
            self._on_advert(data)
            self._air.advertise(self, data)
            await asyncio.sleep(interval_s)

    def quiet(self) -> None:
        """Stop advertising."""
        self.connectable = False
        if self._advertising is not None:
            self._advertising.cancel()
            self._advertising = None

    def notify(self, number: int, handle: int, data: bytes) -> None:
        """Send a notification on the open connection; OSError as on the port."""
        self._connection(number).notify(handle, data)

    def disconnect(self, number: int) -> bool:
        """End the connection; False if it is not there."""
        if self.connection is None or self.connection.number != number:
            return False
        asyncio.get_running_loop().call_later(_INTERVAL_S, self.connection.close)
        return True

    @property
    def linked(self) -> bool:
        """Whether a connection is up that the firmware must know of."""
        if self.connection is None:
            return False
        return asyncio.get_running_loop().time() - self._connected_at > _TOLD_S

    def _connection(self, number: int) -> Connection:
        if self.connection is None or self.connection.number != number:
            raise OSError(128, "not connected")
        return self.connection

    def on_connect(self, connection: Connection) -> None:
        self._connected_at = asyncio.get_running_loop().time()
        self.quiet()  # the controller stops advertising when a central connects
        self._tell("connect", connection.number, "00" * 6)

    def on_disconnect(self, connection: Connection) -> None:
        self._tell("disconnect", connection.number, None)

    def on_mtu(self, connection: Connection, mtu_bytes: int) -> None:
        self._tell("mtu", connection.number, mtu_bytes)

    def on_write(self, connection: Connection, handle: int, data: bytes) -> None:
        self._tell("write", connection.number, [handle, data.hex()])
