"""Stand-in for the port's bluetooth module: the peripheral's half, on the host's air.

Rule: as strict as NimBLE on the port: an attribute holds 20 bytes unless set_buffer says more,
notify raises ENOMEM when its buffers are full, nothing works before active(True), what a handler
is given is only valid while it runs, a disconnection takes its time, and switching the radio off
under a live connection hangs (as micropython#13715 has it).
"""

import time

import kerb_host

_ENODEV = 19
_EINVAL = 22
_DEFAULT_VALUE_BYTES = 20
_SCANNABLE_LEAST_US = 100000  # Bluetooth Core 4.2, vol 2 part E, 7.8.5: ADV_SCAN_IND

_IRQ_CENTRAL_CONNECT = 1
_IRQ_CENTRAL_DISCONNECT = 2
_IRQ_GATTS_WRITE = 3
_IRQ_MTU_EXCHANGED = 21


class UUID:
    """A 16-bit or 128-bit UUID."""

    def __init__(self, value):
        self.text = value if isinstance(value, str) else f"{value:04x}"


class _Value:
    def __init__(self):
        self.data = b""
        self.limit = _DEFAULT_VALUE_BYTES
        self.append = False

    def put(self, data):
        joined = self.data + data if self.append else data
        self.data = joined[: self.limit]


class BLE:
    """The one radio of the chip."""

    _only = None

    def __new__(cls):
        if cls._only is None:
            cls._only = object.__new__(cls)
            cls._only._reset()
        return cls._only

    def _reset(self):
        self._active = False
        self._handler = None
        self._values = {}
        self._mtu = 256
        self._adv_data = b""

    def _need(self):
        if not self._active:
            raise OSError(_ENODEV)

    def active(self, on=None):
        if on is None:
            return self._active
        if on != self._active and not kerb_host.call("ble_active", bool(on)):
            print("virtual board: radio switched off under a live connection: hangs")
            while True:
                time.sleep_ms(1000)
        self._active = bool(on)
        if on:
            kerb_host.on("ble", self._event)
        else:
            self._reset()
        return self._active

    def config(self, *names, mtu=None, gap_name=None, rxbuf=None, addr_mode=None):
        if names:
            if names[0] == "mtu":
                return self._mtu
            raise ValueError("unknown config param")
        self._need()
        if mtu is not None:
            if not 23 <= mtu <= 517:
                raise OSError(_EINVAL)
            self._mtu = mtu
            kerb_host.call("ble_mtu", mtu)

    def irq(self, handler):
        self._handler = handler

    def gap_advertise(self, interval_us, adv_data=None, *, resp_data=None, connectable=True):
        self._need()
        if interval_us is None:
            kerb_host.call("ble_quiet")
            return
        if adv_data is not None:
            if len(adv_data) > 31:
                raise OSError(_EINVAL)
            self._adv_data = bytes(adv_data)
        if interval_us < (20000 if connectable else _SCANNABLE_LEAST_US):
            raise OSError(_EINVAL)
        kerb_host.call("ble_advertise", interval_us, self._adv_data.hex(), bool(connectable))

    def gatts_register_services(self, services):
        self._need()
        table = []
        result = []
        handle = 16
        for service_uuid, characteristics in services:
            row = []
            handles = []
            for characteristic in characteristics:
                handle += 2
                row.append([characteristic[0].text, characteristic[1], handle])
                handles.append(handle)
                self._values[handle] = _Value()
                if characteristic[1] & 0x30:
                    handle += 1  # the descriptor that a client subscribes with
            table.append([service_uuid.text, row])
            result.append(tuple(handles))
        kerb_host.call("ble_services", table)
        return tuple(result)

    def gatts_set_buffer(self, handle, size, append=False):
        self._need()
        self._values[handle].limit = size
        self._values[handle].append = append

    def gatts_read(self, handle):
        self._need()
        value = self._values[handle]
        data = value.data
        if value.append:
            value.data = b""
        return data

    def gatts_write(self, handle, data, send_update=False):
        self._need()
        self._values[handle].put(bytes(data))

    def gatts_notify(self, connection, handle, data=None):
        self._need()
        data = self._values[handle].data if data is None else bytes(data)
        kerb_host.call("ble_notify", connection, handle, data.hex())

    def gap_disconnect(self, connection):
        self._need()
        return kerb_host.call("ble_disconnect", connection)

    def _event(self, event):
        _, name, connection, detail = event
        if name == "write":
            handle, text = detail
            value = self._values.get(handle)
            if value is None:
                return
            value.put(bytes.fromhex(text))
            self._tell(_IRQ_GATTS_WRITE, (connection, handle))
        elif name == "connect":
            peer = memoryview(bytearray(bytes.fromhex(detail)))
            self._tell(_IRQ_CENTRAL_CONNECT, (connection, 0, peer))
        elif name == "disconnect":
            self._tell(_IRQ_CENTRAL_DISCONNECT, (connection, 0, memoryview(bytearray(6))))
        elif name == "mtu":
            self._tell(_IRQ_MTU_EXCHANGED, (connection, detail))

    def _tell(self, event, data):
        if self._handler is not None:
            self._handler(event, data)
