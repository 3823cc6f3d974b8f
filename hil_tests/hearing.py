"""Hears a board's adverts through this machine's own Bluetooth adapter.

Rule: what bleak gives apart is put together again as it was on the air; without an adapter
`missing` says why, and nothing is heard.
"""

from __future__ import annotations

import asyncio
import threading

from bleak import BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError
from kerb_wire import bthome
from kerb_wire.provisioning import address_of

_START_S = 10
_SERVICE = f"0000{bthome.UUID16:04x}-0000-1000-8000-00805f9b34fb"


class Hearing:
    """Listens from its making until close()."""

    def __init__(self, node_id: bytes) -> None:
        self._address = address_of(node_id).hex(":").upper()
        self.adverts: dict[int, set[bytes]] = {}
        self.missing = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._scanner: BleakScanner | None = None
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_S)

    async def _start(self) -> None:
        scanner = BleakScanner(self._on_advert)
        try:
            await scanner.start()
        except (BleakError, OSError, EOFError) as error:
            self.missing = f"a Bluetooth adapter ({error})"
        else:
            self._scanner = scanner

    def _on_advert(self, device: BLEDevice, advert: AdvertisementData) -> None:
        content = advert.service_data.get(_SERVICE)
        if device.address.upper() == self._address and content:
            data = bthome.advertising_data(content)
            self.adverts.setdefault(int.from_bytes(data[-8:-4], "little"), set()).add(data)

    async def _stop(self) -> None:
        if self._scanner is not None:
            await self._scanner.stop()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
