"""An emulated bluetoothd: org.bluez on a private bus, as far as a central needs it.

Rule: it behaves as BlueZ does where that hurts: identical adverts are de-duplicated unless asked
for, unpaired devices are forgotten, one device connects once, a broken link takes its GATT
objects along.

Source: BlueZ 5.66, doc/: adapter-api, device-api, gatt-api, advertisement-monitor-api.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from kerb_sim.air.adstructure import parse
from kerb_sim.air.medium import Advert, Air, Connection
from kerb_sim.air.objects import ObjectTree, Properties

_ADAPTER = "org.bluez.Adapter1"
_DEVICE = "org.bluez.Device1"
_SERVICE = "org.bluez.GattService1"
_CHARACTERISTIC = "org.bluez.GattCharacteristic1"
_MONITORS = "org.bluez.AdvertisementMonitorManager1"

_FLAG_NAMES = ((0x02, "read"), (0x04, "write-without-response"), (0x08, "write"), (0x10, "notify"))

_CONNECT_TIMEOUT_S = 4.0
_FORGET_S = 30.0


class BluezError(Exception):
    """An error reply: (name without its prefix, text)."""


class Bluez:
    """One bluetoothd with its adapters; start() puts it on the bus, stop() lets it die."""

    def __init__(
        self,
        address: str,
        air: Air,
        adapters: tuple[str, ...] = ("hci0",),
        *,
        passive: bool = True,
        forget_s: float = _FORGET_S,
    ) -> None:
        """passive: whether AdvertisementMonitorManager1 is offered (BlueZ with --experimental)."""
        self._address = address
        self._air = air
        self._adapters = adapters
        self._passive = passive
        self._forget_s = forget_s
        self._bus: MessageBus | None = None
        self._scanners: dict[str, dict[str, str]] = {}  # adapter -> client -> "active" | path
        self._duplicates: set[str] = set()
        self._connections: dict[str, Connection] = {}
        self._connecting: set[str] = set()
        self._heard_at: dict[str, float] = {}
        self._jobs: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Appear on the bus as org.bluez."""
        bus = await MessageBus(bus_address=self._address, bus_type=BusType.SYSTEM).connect()
        self._bus = bus
        self.tree = ObjectTree(bus)
        bus.add_message_handler(self._handle)
        for index, name in enumerate(self._adapters):
            self.tree.add(f"/org/bluez/{name}", self._adapter_interfaces(name, index))
            self._scanners[name] = {}
            self._air.listen(name, self._hears(name))
        await bus.request_name("org.bluez")
        self._sweeper = asyncio.ensure_future(self._sweep())

    async def stop(self) -> None:
        """Vanish from the bus, as a bluetoothd that died: every link breaks."""
        for name in self._adapters:
            self._air.listen(name, None)
        for connection in list(self._connections.values()):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for job in list(self._jobs):
            job.cancel()
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    def _adapter_interfaces(self, name: str, index: int) -> dict[str, Properties]:
        interfaces = {
            _ADAPTER: {
                "Address": Variant("s", f"00:1A:7D:DA:71:{index:02X}"),
                "AddressType": Variant("s", "public"),
                "Name": Variant("s", f"virtual {name}"),
                "Alias": Variant("s", f"virtual {name}"),
                "Powered": Variant("b", True),
                "Roles": Variant("as", ["central", "peripheral"]),
                "Discovering": Variant("b", False),
                "UUIDs": Variant("as", []),
            }
        }
        if self._passive:
            interfaces[_MONITORS] = {
                "SupportedMonitorTypes": Variant("as", ["or_patterns"]),
                "SupportedFeatures": Variant("as", []),
            }
        return interfaces

    # --- adverts ---

    def _hears(self, name: str) -> Callable[[Advert], None]:
        def hear(advert: Advert) -> None:
            if self._scanners[name] and self.tree.value(f"/org/bluez/{name}", _ADAPTER, "Powered"):
                self._found(name, advert)

        return hear

    def _path(self, adapter: str, address: str) -> str:
        return f"/org/bluez/{adapter}/dev_{address.replace(':', '_')}"

    def _found(self, adapter: str, advert: Advert) -> None:
        path = self._path(adapter, advert.address)
        self._heard_at[path] = asyncio.get_running_loop().time()
        changed: Properties = {"RSSI": Variant("n", advert.rssi)}
        service_data = {uuid: Variant("ay", data) for uuid, data in parse(advert.data).items()}
        if service_data:
            changed["ServiceData"] = Variant("a{sv}", service_data)
        held = self.tree.objects.get(path, {}).get(_DEVICE)
        if held is None:
            self.tree.add(path, {_DEVICE: self._device(adapter, advert) | changed})
            return
        same = "ServiceData" in held and _plain(held["ServiceData"]) == _plain(
            changed.get("ServiceData")
        )
        if same and adapter not in self._duplicates:
            return  # the kernel has seen these very bytes
        if held["Connected"].value:
            return
        self.tree.change(path, _DEVICE, changed)

    def _device(self, adapter: str, advert: Advert) -> Properties:
        return {
            "Address": Variant("s", advert.address),
            "AddressType": Variant("s", "public"),
            "Alias": Variant("s", advert.address.replace(":", "-")),
            "Paired": Variant("b", False),
            "Bonded": Variant("b", False),
            "Trusted": Variant("b", False),
            "Blocked": Variant("b", False),
            "LegacyPairing": Variant("b", False),
            "Connected": Variant("b", False),
            "ServicesResolved": Variant("b", False),
            "UUIDs": Variant("as", []),
            "Adapter": Variant("o", f"/org/bluez/{adapter}"),
        }

    async def _sweep(self) -> None:
        """Forget unpaired devices that were not heard for a while, as BlueZ does."""
        while True:
            await asyncio.sleep(min(1.0, self._forget_s / 4))
            now = asyncio.get_running_loop().time()
            for path, heard in list(self._heard_at.items()):
                if now - heard > self._forget_s and path not in self._connections:
                    del self._heard_at[path]
                    self.tree.remove(path)

    # --- method calls ---

    def _handle(self, message: Message) -> Message | bool | None:
        if message.message_type == MessageType.SIGNAL:
            self._owner_changed(message)
            return None
        if message.message_type != MessageType.METHOD_CALL or self._bus is None:
            return None
        if message.interface in (
            "org.freedesktop.DBus.Introspectable",
            "org.freedesktop.DBus.Peer",
        ):
            return None
        standard = self.tree.answer(message)
        if standard is not None:
            return standard
        job = asyncio.ensure_future(self._reply(message))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return True

    async def _reply(self, message: Message) -> None:
        interface = (message.interface or "").rsplit(".", 1)[-1]
        name = f"_on_{interface}_{message.member}"
        try:
            method = getattr(self, name, None)
            if method is None or str(message.path) not in self.tree.objects:
                known = (
                    "UnknownMethod" if str(message.path) in self.tree.objects else "UnknownObject"
                )
                reply = Message.new_error(
                    message, f"org.freedesktop.DBus.Error.{known}", f"{message.path} {name}"
                )
            else:
                result = await method(message)
                reply = result or Message.new_method_return(message)
        except BluezError as error:
            reply = Message.new_error(message, f"org.bluez.Error.{error.args[0]}", error.args[1])
        if self._bus is not None:
            self._bus.send(reply)

    def _owner_changed(self, message: Message) -> None:
        """A client that left the bus no longer scans."""
        if message.member == "NameOwnerChanged" and not message.body[2]:
            for scanners in self._scanners.values():
                scanners.pop(message.body[0], None)

    def _adapter_of(self, message: Message) -> str:
        return str(message.path).split("/")[3]

    async def _on_Adapter1_SetDiscoveryFilter(self, message: Message) -> None:
        wants = message.body[0].get("DuplicateData")
        adapter = self._adapter_of(message)
        (self._duplicates.add if wants is None or wants.value else self._duplicates.discard)(
            adapter
        )

    async def _on_Adapter1_StartDiscovery(self, message: Message) -> None:
        adapter = self._adapter_of(message)
        if not self.tree.value(f"/org/bluez/{adapter}", _ADAPTER, "Powered"):
            raise BluezError("NotReady", "Resource Not Ready")
        if message.sender in self._scanners[adapter]:
            raise BluezError("InProgress", "Operation already in progress")
        self._scanners[adapter][str(message.sender)] = "active"
        self._discovering(adapter)

    async def _on_Adapter1_StopDiscovery(self, message: Message) -> None:
        adapter = self._adapter_of(message)
        if self._scanners[adapter].pop(str(message.sender), None) is None:
            raise BluezError("Failed", "No discovery started")
        self._discovering(adapter)

    def _discovering(self, adapter: str) -> None:
        on = bool(self._scanners[adapter])
        self.tree.change(f"/org/bluez/{adapter}", _ADAPTER, {"Discovering": Variant("b", on)})

    async def _on_Adapter1_RemoveDevice(self, message: Message) -> None:
        path = message.body[0]
        if path in self._connections:
            self._connections[path].close()
        self.tree.remove(path)

    async def _on_AdvertisementMonitorManager1_RegisterMonitor(self, message: Message) -> None:
        if not self._passive:
            raise BluezError("NotSupported", "no advertisement monitors")
        adapter = self._adapter_of(message)
        self._scanners[adapter][f"{message.sender}{message.body[0]}"] = "passive"
        self._duplicates.add(adapter)

    async def _on_AdvertisementMonitorManager1_UnregisterMonitor(self, message: Message) -> None:
        self._scanners[self._adapter_of(message)].pop(f"{message.sender}{message.body[0]}", None)

    # --- connections ---

    async def _on_Device1_Connect(self, message: Message) -> None:
        path = str(message.path)
        if path in self._connections:
            raise BluezError("AlreadyConnected", "Already Connected")
        if path in self._connecting:
            raise BluezError("InProgress", "In Progress")
        self._connecting.add(path)
        try:
            connection = await self._air.connect(
                self.tree.value(path, _DEVICE, "Address"),
                self._adapter_of(message),
                _CONNECT_TIMEOUT_S,
            )
        except TimeoutError:
            raise BluezError("Failed", "le-connection-timeout") from None
        finally:
            self._connecting.discard(path)
        if path not in self.tree.objects:
            connection.close()
            raise BluezError("Failed", "le-connection-abort-by-remote")
        self._connections[path] = connection
        connection.on_close = lambda: self._closed(path)
        self.tree.change(path, _DEVICE, {"Connected": Variant("b", True)})
        self._resolve(path, connection)

    def _resolve(self, path: str, connection: Connection) -> None:
        """Export the station's GATT table; its notifications become values."""
        for service in connection.station.services:
            below = f"{path}/service{service.characteristics[0].handle - 2:04x}"
            self.tree.add(
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
                self.tree.add(
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
        self.tree.change(path, _DEVICE, {"ServicesResolved": Variant("b", True)})

    def _notified(self, path: str, handle: int, data: bytes) -> None:
        for one in self.tree.objects:
            if one.startswith(path + "/") and one.endswith(f"/char{handle:04x}"):
                if self.tree.value(one, _CHARACTERISTIC, "Notifying"):
                    self.tree.change(one, _CHARACTERISTIC, {"Value": Variant("ay", data)})
                return

    def _closed(self, path: str) -> None:
        self._connections.pop(path, None)
        if path not in self.tree.objects:
            return
        for one in [one for one in self.tree.objects if one.startswith(path + "/service")]:
            if one in self.tree.objects:
                self.tree.remove(one)
        self.tree.change(
            path,
            _DEVICE,
            {"ServicesResolved": Variant("b", False), "Connected": Variant("b", False)},
        )

    async def _on_Device1_Disconnect(self, message: Message) -> None:
        connection = self._connections.get(str(message.path))
        if connection is not None:
            connection.close()

    def _connection_of(self, message: Message) -> tuple[Connection, int]:
        path = str(message.path)
        connection = self._connections.get(path.split("/service")[0])
        if connection is None:
            raise BluezError("NotConnected", "Not Connected")
        return connection, int(path[-4:], 16)

    async def _on_GattCharacteristic1_WriteValue(self, message: Message) -> None:
        connection, handle = self._connection_of(message)
        try:
            await connection.write(handle, bytes(message.body[0]))
        except OSError as error:
            raise BluezError("Failed", "Not connected") from error

    async def _on_GattCharacteristic1_StartNotify(self, message: Message) -> None:
        self._connection_of(message)
        self.tree.change(str(message.path), _CHARACTERISTIC, {"Notifying": Variant("b", True)})

    async def _on_GattCharacteristic1_StopNotify(self, message: Message) -> None:
        self.tree.change(str(message.path), _CHARACTERISTIC, {"Notifying": Variant("b", False)})


def _plain(variant: Variant | None) -> Any:
    with contextlib.suppress(AttributeError):
        return {key: value.value for key, value in variant.value.items()}  # type: ignore[union-attr]
    return None
