"""Half-duplex RS-485: a UART and the pin that turns the transceiver round.

Rule: the ESP32 port has no RS-485 mode, so: driver on, write, flush(), driver off. A frame ends
with silence; whatever arrives meanwhile belongs to it.
"""

import asyncio

_FRAME_MAX_BYTES = 256
_OVERFLOW_BYTES = 512


class Rs485:
    """Frames in, frames out."""

    def __init__(self, uart, driver_enable, baudrate):
        self._uart = uart
        self._driver_enable = driver_enable
        self._reader = asyncio.StreamReader(uart)
        # 3.5 characters of 11 bits, at least 1.75 ms (Modbus over Serial Line 2.5.1.1); a few
        # milliseconds more, because asyncio's own grain is one.
        self._silence_ms = max(2, 38500 // baudrate) + 3

    async def receive(self):
        """Return the next frame (bytes); one that is too long comes cut, and fails its CRC."""
        frame = bytearray(await self._reader.read(_FRAME_MAX_BYTES) or b"")
        while True:
            await asyncio.sleep_ms(self._silence_ms)
            more = self._uart.read(_FRAME_MAX_BYTES) if self._uart.any() else None
            if not more:
                return bytes(frame)
            if len(frame) < _OVERFLOW_BYTES:
                frame.extend(more)

    def send(self, frame):
        """Send one frame and free the bus again."""
        self._driver_enable.value(1)
        self._uart.write(frame)
        self._uart.flush()
        self._driver_enable.value(0)
