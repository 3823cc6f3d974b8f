"""The radio: adverts out, and one GATT peer at a time as a byte stream in and out.

Rule: the interrupt handler only sets flags; the main loop does the work. Nothing is allocated in
the handler, and what a peer may send is bounded by the attribute's buffer. The radio is never
switched off under a live connection: NimBLE's shutdown can hang on it (micropython#13715).
"""

import time

import bluetooth
import esp32
from kerb_wire import gatt

_IRQ_CENTRAL_CONNECT = 1
_IRQ_CENTRAL_DISCONNECT = 2
_IRQ_GATTS_WRITE = 3
_IRQ_MTU_EXCHANGED = 21

_FLAG_WRITE_NO_RESPONSE = 0x04
_FLAG_WRITE = 0x08
_FLAG_NOTIFY = 0x10

_BUFFER_BYTES = 512
_NOTIFY_TRIES = 100
_NOTIFY_PAUSE_MS = 10
_ENOMEM = 12
_GONE_MS = 1000  # a termination takes a few connection intervals, or the supervision timeout
_LATE_MS = 20  # a connection that was made while advertising stopped is told within that
# Below 100 ms the controller of the original ESP32 (Bluetooth 4.2) refuses what the port sends
# for connectable=False, a scannable undirected advert (Core 4.2, vol 2 part E, 7.8.5).
_SCANNABLE_LEAST_MS = 100
# What NimBLE's start takes from ESP-IDF's heap. Without it the port panics up to 1.27 instead of
# raising (micropython#14293).
_STACK_BYTES = 40000


class Radio:
    """Bluetooth LE, on from the constructor to off()."""

    def __init__(self):
        _need_memory()
        self._ble = bluetooth.BLE()
        self._ble.active(True)
        self._ble.config(mtu=gatt.ATT_MTU_WANTED_BYTES)
        self._ble.irq(self._handle)
        self._link = None  # the connection, until the stack says that it has ended
        self._peer = None  # the same, while we still listen to it
        self._mtu_bytes = gatt.ATT_MTU_DEFAULT_BYTES
        self._arrived = False
        self._down = None
        self._up = None

    def _handle(self, event, data):
        if event == _IRQ_CENTRAL_CONNECT:
            self._link = self._peer = data[0]
        elif event == _IRQ_CENTRAL_DISCONNECT:
            if data[0] == self._link:  # a late word about an earlier peer changes nothing
                self._link = self._peer = None
        elif event == _IRQ_GATTS_WRITE:
            if data[0] == self._peer:
                self._arrived = True
        elif event == _IRQ_MTU_EXCHANGED:
            self._mtu_bytes = data[1]

    def serve(self):
        """Register the node's GATT service; needed once before a connectable advert."""
        if self._down is not None:
            return
        service = (
            bluetooth.UUID(gatt.SERVICE_UUID),
            (
                (bluetooth.UUID(gatt.DOWN_UUID), _FLAG_WRITE | _FLAG_WRITE_NO_RESPONSE),
                (bluetooth.UUID(gatt.UP_UUID), _FLAG_NOTIFY),
            ),
        )
        ((self._down, self._up),) = self._ble.gatts_register_services((service,))
        # 20 bytes are the default; in append mode writes queue up until they are read.
        self._ble.gatts_set_buffer(self._down, _BUFFER_BYTES, True)

    def advertise(self, data, interval_ms, connectable):
        """Send `data` (at most 31 bytes) every interval_ms until quiet()."""
        if not connectable:
            interval_ms = max(_SCANNABLE_LEAST_MS, interval_ms)
        self._ble.gap_advertise(interval_ms * 1000, data, connectable=connectable)

    def quiet(self):
        """Stop advertising."""
        self._ble.gap_advertise(None)

    @property
    def connected(self):
        """True while a peer is connected."""
        return self._peer is not None

    def read(self):
        """Return the bytes that the peer has written since the last call."""
        if not self._arrived:
            return b""
        self._arrived = False
        return bytes(self._ble.gatts_read(self._down))

    def write(self, frame):
        """Send a frame as notifications; False when the peer has gone or takes no more."""
        for chunk in gatt.chunks(frame, self._mtu_bytes):
            if not self._notify(chunk):
                return False
        return True

    def _notify(self, chunk):
        for _ in range(_NOTIFY_TRIES):
            peer = self._peer
            if peer is None:
                return False
            try:
                self._ble.gatts_notify(peer, self._up, chunk)
                return True
            except OSError as error:
                if error.errno != _ENOMEM:
                    return False
                # The stack's buffers are full: they drain at the connection's own pace.
                time.sleep_ms(_NOTIFY_PAUSE_MS)
        return False

    def drop(self):
        """Disconnect the peer and wait until it has gone, at most _GONE_MS."""
        link = self._link
        self._peer = None
        if link is not None:
            try:
                self._ble.gap_disconnect(link)
            except OSError:
                pass  # it has just gone by itself
            self._wait_gone()
        self._mtu_bytes = gatt.ATT_MTU_DEFAULT_BYTES
        self._arrived = False
        self._ble.gatts_read(self._down)  # what it left behind is not the next peer's

    def _wait_gone(self):
        start = time.ticks_ms()
        while self._link is not None and time.ticks_diff(time.ticks_ms(), start) < _GONE_MS:
            time.sleep_ms(_NOTIFY_PAUSE_MS)

    def off(self):
        """Stop advertising, part with whoever came in the last moment, switch the radio off."""
        self.quiet()
        if self._down is not None:
            time.sleep_ms(_LATE_MS)
            self.drop()
        self._ble.active(False)


def _need_memory():
    """Raise MemoryError unless the radio's stack will find its memory."""
    largest = max([row[2] for row in esp32.idf_heap_info(esp32.HEAP_DATA)])
    if largest < _STACK_BYTES:
        raise MemoryError(f"the radio needs {_STACK_BYTES} bytes, there are {largest}")
