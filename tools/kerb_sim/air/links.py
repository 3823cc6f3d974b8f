"""Connections and their GATT objects: Device1.Connect to GattCharacteristic1.WriteValue.

Rule: a broken link takes its GATT objects along; a Disconnect ends a pending Connect too; what a
characteristic does not offer is refused as BlueZ refuses it.

Source: BlueZ 5.66, doc/device-api, doc/gatt-api; src/device.c, src/gatt-client.c.
"""

from __future__ import annotations

import asyncio

from dbus_fast import Message, Variant

from kerb_sim.air.errors import (
    IN_PROGRESS,
    INVALID_ARGUMENTS,
    NOT_CONNECTED,
    NOT_READY,
    NOT_SUPPORTED,
    BluezError,
)
from kerb_sim.air.habits import Habits
from kerb_sim.air.medium import Air, Connection
from kerb_sim.air.objects import ObjectTree
from kerb_sim.air.scan import ADAPTER, DEVICE

_SERVICE = "org.bluez.GattService1"
_CHARACTERISTIC = "org.bluez.GattCharacteristic1"
_FLAG_NAMES = ((0x02, "read"), (0x04, "write-without-response"), (0x08, "write"), (0x10, "notify"))
_ATT_HEADER_BYTES = 3
_ATTRIBUTE_MAX_BYTES = 512
_ABORTED = ("Failed", "br-connection-canceled")  # BlueZ's word for LE too


class Links:
    """The connections of all adapters, by the path of their device."""

    def __init__(self, tree: ObjectTree, air: Air, habits: Habits) -> None:
        self._tree = tree
        self._air = air
        self._connect_timeout_s = habits.connect_timeout_s
        self._discovery_s = habits.discovery_s
        self._open: dict[str, Connection] = {}
        self._pending: dict[str, asyncio.Task[Connection]] = {}
        self._notifying: dict[str, set[str]] = {}  # characteristic -> clients

    @property
    def paths(self) -> set[str]:
        """The devices that are connected or about to be."""
        return {*self._open, *self._pending}

    async def connect(self, message: Message) -> None:
        """Connect to a device; the reply comes when the link stands, as from BlueZ."""
        path = str(message.path)
        adapter = "/".join(path.split("/")[:4])
        if not self._tree.value(adapter, ADAPTER, "Powered"):
            raise BluezError(*NOT_READY)
        if path in self._open:
            raise BluezError("AlreadyConnected", "Already Connected")
        if path in self._pending:
            raise BluezError(*IN_PROGRESS)
        address = self._tree.value(path, DEVICE, "Address")
        attempt = asyncio.ensure_future(
            self._air.connect(address, adapter.rsplit("/", 1)[1], self._connect_timeout_s)
        )
        self._pending[path] = attempt
        await asyncio.wait([attempt])
        del self._pending[path]
        if attempt.cancelled():
            raise BluezError(*_ABORTED)
        if isinstance(attempt.exception(), TimeoutError):
            raise BluezError("Failed", "le-connection-timeout")
        connection = attempt.result()
        if path not in self._tree.objects:
            connection.close()
            raise BluezError(*_ABORTED)
        self._stands(path, connection)

    def _stands(self, path: str, connection: Connection) -> None:
        self._open[path] = connection
        connection.on_close = lambda: self._closed(path)
        self._tree.change(path, DEVICE, {"Connected": Variant("b", True)})
        asyncio.get_running_loop().call_later(self._discovery_s, self._resolve, path, connection)

    def _resolve(self, path: str, connection: Connection) -> None:
        """Export the station's GATT table; its notifications become values."""
        if self._open.get(path) is not connection:
            return  # the link broke while the services were discovered
        for service in connection.station.services:
            below = f"{path}/service{service.characteristics[0].handle - 2:04x}"
            self._tree.add(
                below,
                {
                    _SERVICE: {
                        "UUID": Variant("s", service.uuid),
                        "Device": Variant("o", path),
                        "Primary": Variant("b", True),
                    }
                },
            )
            for one in service.characteristics:
                flags = [name for bit, name in _FLAG_NAMES if one.flags & bit]
                self._tree.add(
                    f"{below}/char{one.handle:04x}",
                    {
                        _CHARACTERISTIC: {
                            "UUID": Variant("s", one.uuid),
                            "Service": Variant("o", below),
                            "Value": Variant("ay", b""),
                            "Notifying": Variant("b", False),
                            "Flags": Variant("as", flags),
                            "MTU": Variant("q", connection.mtu),
                        }
                    },
                )
        connection.on_notify = lambda handle, data: self._notified(path, handle, data)
        self._tree.change(path, DEVICE, {"ServicesResolved": Variant("b", True)})

    def _notified(self, path: str, handle: int, data: bytes) -> None:
        for one in self._tree.below(path):
            if one.endswith(f"/char{handle:04x}"):
                if self._notifying.get(one):
                    self._tree.change(one, _CHARACTERISTIC, {"Value": Variant("ay", data)})
                return

    async def disconnect(self, message: Message) -> None:
        """End a link, or the attempt to make one."""
        path = str(message.path)
        if path in self._pending:
            self._pending[path].cancel()
        elif path in self._open:
            self._open[path].close()
        else:
            raise BluezError(*NOT_CONNECTED)

    def drop(self, below: str = "") -> None:
        """End every link and attempt below a path, as a device, an adapter or bluetoothd goes."""
        for path, attempt in list(self._pending.items()):
            if path == below or path.startswith(below + "/"):
                attempt.cancel()
        for path, connection in list(self._open.items()):
            if path == below or path.startswith(below + "/"):
                connection.close()

    def _closed(self, path: str) -> None:
        self._open.pop(path, None)
        for one in [one for one in self._notifying if one.startswith(path + "/")]:
            del self._notifying[one]
        for one in [one for one in self._tree.below(path) if one != path]:
            if one in self._tree.objects:
                self._tree.remove(one)
        self._tree.change(
            path,
            DEVICE,
            {"ServicesResolved": Variant("b", False), "Connected": Variant("b", False)},
        )

    # --- GATT ---

    def _connection_of(self, path: str) -> Connection:
        connection = self._open.get(path.split("/service")[0])
        if connection is None:
            raise BluezError(*NOT_CONNECTED)
        return connection

    def _flags(self, path: str) -> list[str]:
        flags: list[str] = self._tree.value(path, _CHARACTERISTIC, "Flags")
        return flags

    async def write_value(self, message: Message) -> None:
        """WriteValue(value, options); the reply comes when the peer has answered."""
        path = str(message.path)
        connection = self._connection_of(path)
        value, options = bytes(message.body[0]), message.body[1]
        kind = options["type"].value if "type" in options else None
        flags = self._flags(path)
        if kind is None:
            kind = "request" if "write" in flags else "command"
        needed = "write-without-response" if kind == "command" else "write"
        if needed not in flags:
            raise BluezError(*NOT_SUPPORTED)
        if len(value) > _ATTRIBUTE_MAX_BYTES:
            raise BluezError(*INVALID_ARGUMENTS)
        if len(value) > connection.mtu - _ATT_HEADER_BYTES:
            if kind == "command":
                raise BluezError("Failed", "Failed to initiate write")
            # BlueZ would send it in prepared writes, which these stations do not take.
            raise BluezError(*NOT_SUPPORTED)
        try:
            await connection.write(int(path[-4:], 16), value)
        except OSError as error:
            raise BluezError("Failed", "Not connected") from error

    async def start_notify(self, message: Message) -> None:
        """StartNotify, counted by client."""
        path, client = str(message.path), str(message.sender)
        self._connection_of(path)
        if "notify" not in self._flags(path):
            raise BluezError(*NOT_SUPPORTED)
        clients = self._notifying.setdefault(path, set())
        if client in clients:
            raise BluezError(*IN_PROGRESS)
        clients.add(client)
        self._tree.change(path, _CHARACTERISTIC, {"Notifying": Variant("b", True)})

    async def stop_notify(self, message: Message) -> None:
        """StopNotify of a client that notifies."""
        path, client = str(message.path), str(message.sender)
        if client not in self._notifying.get(path, set()):
            raise BluezError("Failed", "No notify session started")
        self._leave(path, client)

    def vanished(self, client: str) -> None:
        """A client left the bus: its subscriptions end; its connections stay, as with BlueZ."""
        for path in list(self._notifying):
            self._leave(path, client)

    def _leave(self, path: str, client: str) -> None:
        clients = self._notifying[path]
        clients.discard(client)
        if not clients:
            del self._notifying[path]
            self._tree.change(path, _CHARACTERISTIC, {"Notifying": Variant("b", False)})
