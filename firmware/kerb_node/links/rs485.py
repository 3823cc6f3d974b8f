"""Half-duplex RS-485: a UART and the pin that turns the transceiver round.

Rule: the ESP32 port has no RS-485 mode, so: driver on, write, flush(), driver off. Length and CRC
say first whether a frame is whole; silence is there to find the next one after something broken.
"""

import asyncio

_FRAME_MAX_BYTES = 256
_OVERFLOW_BYTES = 512
_PATIENCE_MS = 20


class Rs485:
    """Frames in, frames out."""

    def __init__(self, uart, driver_enable, baudrate, server):
        """server: finds whole requests and tells begun ones (find, is_begun)."""
        self._uart = uart
        self._driver_enable = driver_enable
        self._server = server
        self._reader = asyncio.StreamReader(uart)
        # 3.5 characters of 11 bits, at least 1.75 ms (Modbus over Serial Line 2.5.1.1); a few
        # milliseconds more, because asyncio's own grain is one.
        self._silence_ms = max(2, 38500 // baudrate) + 3

    async def receive(self):
        """Return the next request to this unit, or whatever else ended with silence (bytes)."""
        data = bytearray(await self._reader.read(_FRAME_MAX_BYTES) or b"")
        while True:
            request = self._server.find(data)
            if request is not None:
                return request
            # A garbage collection here, or a slow sender there, must not cut a request to us.
            begun = self._server.is_begun(data)
            await asyncio.sleep_ms(_PATIENCE_MS if begun else self._silence_ms)
            more = self._uart.read(_FRAME_MAX_BYTES) if self._uart.any() else None
            if not more or len(data) > _OVERFLOW_BYTES:
                return bytes(data)
            data.extend(more)

    def send(self, frame):
        """Send one frame and free the bus again."""
        self._driver_enable.value(1)
        self._uart.write(frame)
        self._uart.flush()
        self._driver_enable.value(0)
