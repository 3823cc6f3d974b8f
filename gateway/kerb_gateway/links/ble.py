"""Bluetooth LE through bleak: adverts into a bounded queue, GATT sessions as byte streams.

Rule: the detection callback only hands over; every wait has an end; bleak's and D-Bus's errors
leave this file as LinkError (one node) or LinkDown (the adapter).
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from bleak import BleakClient, BleakScanner
from bleak.args.bluez import OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError
from kerb_wire import bthome, gatt

from kerb_gateway.clock import Clock
from kerb_gateway.errors import LinkDown, LinkError
from kerb_gateway.model import Heard

_SERVICE_DATA = f"0000{bthome.UUID16:04x}-0000-1000-8000-00805f9b34fb"
# dbus-fast hands over all that lies in its socket before anybody else has a turn: a burst of
# 20,000 adverts comes as one piece. A full queue is some 20 MB.
_QUEUE_ADVERTS = 32768
_CLOSE_S = 3.0
_PIECES = 256
# Stable kernels that have Linux commit b5431dc2803a ("avoid dup filtering when passive scanning
# with adv monitor", first in 6.11): in other kernels from 5.17 on, a controller that takes every
# advert of an address for a duplicate reports a node once, and never again.
_PASSIVE_FROM = (6, 11)
_PASSIVE_STABLE = {(6, 10): 5, (6, 6): 46}

Log = Callable[..., Any]


def hears_repeats_passively(kernel: str) -> bool:
    """Tell whether a passive scan under this kernel release hears a node more than once."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", kernel)
    if match is None:
        return False
    series, patch = (int(match[1]), int(match[2])), int(match[3] or 0)
    return series >= _PASSIVE_FROM or patch >= _PASSIVE_STABLE.get(series, patch + 1)


class BleLink:
    """One adapter: scan() fills `queue`, converse() opens a session with one node."""

    def __init__(
        self,
        adapter: str,
        scanning: str,
        clock: Clock,
        log: Log,
        *,
        deaf_after_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        kernel: str | None = None,
    ) -> None:
        """scanning: active, passive, or auto (passive where BlueZ offers it and the kernel is good
        for it); kernel: the release, by default the running one's.
        """
        self.adapter = adapter
        self._scanning = scanning
        self._clock = clock
        self._log = log
        self._deaf_after_s = deaf_after_s
        self._connect_timeout_s = connect_timeout_s
        self._kernel = kernel or platform.release()
        self._heard_at = 0.0
        self.queue: asyncio.Queue[Heard] = asyncio.Queue(_QUEUE_ADVERTS)
        self.dropped = 0

    def _detected(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        self._heard_at = asyncio.get_running_loop().time()  # a stranger too proves a good ear
        data = advertisement.service_data.get(_SERVICE_DATA)
        if data is None:
            return
        heard = Heard(
            device.address.upper(),
            bytes(data),
            advertisement.rssi,
            self.adapter,
            self._clock.boottime_ms(),
            device,
        )
        try:
            self.queue.put_nowait(heard)
        except asyncio.QueueFull:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # said at 1, 2, 4, 8, ...: never a flood
                self._log("adverts dropped: queue full", adapter=self.adapter, number=self.dropped)

    def _scanner(self, mode: str) -> BleakScanner:
        if mode == "passive":
            pattern = OrPattern(
                0,
                AdvertisementDataType.SERVICE_DATA_UUID16,
                bthome.UUID16.to_bytes(2, "little"),
            )
            return BleakScanner(
                self._detected,
                scanning_mode="passive",
                bluez={"adapter": self.adapter, "or_patterns": [pattern]},
            )
        return BleakScanner(
            self._detected,
            bluez={"adapter": self.adapter, "filters": {"DuplicateData": True}},
        )

    async def scan(self) -> None:
        """Scan until the adapter fails: LinkDown, and the caller begins anew.

        bleak does not notice that bluetoothd died, so silence is what is watched for: after
        deaf_after_s of it the scan is made anew, which fails if nobody is there to scan.
        """
        modes = self._modes()
        silences = 0
        while True:
            scanner, mode = await self._start(modes)
            modes = [mode]
            if silences == 0:
                self._log("scanning", adapter=self.adapter, mode=mode)
            if await self._listen(scanner):
                silences = 0
            silences += 1
            if silences & (silences - 1) == 0:  # a lone node is silent for most of its life
                self._log(
                    "nothing heard: scan restarted",
                    adapter=self.adapter,
                    for_s=self._deaf_after_s,
                    times=silences,
                )

    async def _start(self, modes: list[str]) -> tuple[BleakScanner, str]:
        """Start the first of `modes` that is offered."""
        for mode in modes:
            scanner = self._scanner(mode)
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await scanner.start()
                return scanner, mode
            except (BleakError, OSError, EOFError, TimeoutError) as error:
                if mode == modes[-1]:
                    raise LinkDown(
                        f"{self.adapter}: {mode} scan does not start: {error}"
                    ) from error
                self._log("scanning mode not offered", adapter=self.adapter, mode=mode)
        raise LinkDown(f"{self.adapter}: no scanning mode is left")

    def _modes(self) -> list[str]:
        """Return the modes to try, the wanted one first."""
        if self._scanning != "auto":
            return [self._scanning]
        if not hears_repeats_passively(self._kernel):
            return ["active"]
        return ["passive", "active"]

    async def _listen(self, scanner: BleakScanner) -> bool:
        """Listen until nothing was heard for deaf_after_s; tell whether anything ever was."""
        loop = asyncio.get_running_loop()
        began = self._heard_at = loop.time()
        try:
            while loop.time() - self._heard_at < self._deaf_after_s:
                await asyncio.sleep(min(1.0, self._deaf_after_s / 4))
        finally:
            with contextlib.suppress(BleakError, OSError, EOFError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await scanner.stop()
        return self._heard_at > began

    @contextlib.asynccontextmanager
    async def converse(self, heard: Heard) -> AsyncIterator[GattStream]:
        """Connect to the node whose advert was just heard; LinkError if it does not answer."""
        client = BleakClient(heard.handle, timeout=self._connect_timeout_s)
        try:
            yield await self._opened(client)
        finally:  # however opening it ended: bleak's connection to the bus would stay as well
            await _disconnect(client)

    async def _opened(self, client: BleakClient) -> GattStream:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await client.connect()
            stream = GattStream(client)
            await stream.open()
        except (BleakError, OSError, EOFError, TimeoutError) as error:
            raise LinkError(f"no connection: {str(error) or type(error).__name__}") from error
        return stream


async def _disconnect(client: BleakClient) -> None:
    with contextlib.suppress(BleakError, OSError, EOFError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await client.disconnect()


class GattStream:
    """A node's two characteristics as a byte stream."""

    def __init__(self, client: BleakClient) -> None:
        self._client = client
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(_PIECES)
        self._down: BleakGATTCharacteristic | None = None

    async def open(self) -> None:
        """Find the service and subscribe; LinkError if the peer is not a Kerbstone node."""
        self._down = self._client.services.get_characteristic(gatt.DOWN_UUID)
        up = self._client.services.get_characteristic(gatt.UP_UUID)
        if self._down is None or up is None:
            raise LinkError("the peer has no Kerbstone service")
        await self._client.start_notify(up, self._arrived)

    def _arrived(self, _: BleakGATTCharacteristic, data: bytearray) -> None:
        # When the queue is full the frame it belonged to is lost, and with it the session.
        with contextlib.suppress(asyncio.QueueFull):
            self._pieces.put_nowait(bytes(data))

    async def send(self, frame: bytes) -> None:
        """Write one frame; LinkError if the link breaks."""
        if self._down is None:
            raise LinkError("not open")
        mtu_bytes = self._down.max_write_without_response_size + gatt.ATT_HEADER_BYTES
        try:
            for chunk in gatt.chunks(frame, mtu_bytes):
                await self._client.write_gatt_char(self._down, chunk, response=True)
        except (BleakError, OSError, EOFError) as error:
            raise LinkError(f"write failed: {error}") from error

    async def receive(self, timeout_s: float) -> bytes:
        """Return the next bytes from the node; LinkError when none come in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._pieces.get()
        except TimeoutError:
            raise LinkError(f"no answer within {timeout_s:.1f} s") from None
