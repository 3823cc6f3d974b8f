"""An emulated bluetoothd: org.bluez on a private bus, as far as a central needs it.

Rule: it behaves as BlueZ does where that hurts; what is not emulated is an error, never a
pretended success. This file is the daemon: its bus, its adapters, its clients and the table of
what may be called; scan.py, monitors.py and links.py are what it does.

Source: BlueZ 5.66, doc/: adapter-api, device-api, gatt-api, advertisement-monitor-api.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dbus_fast import BusType, Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

from kerb_sim.air.errors import NOT_READY, BluezError
from kerb_sim.air.habits import Habits
from kerb_sim.air.links import Links
from kerb_sim.air.medium import Air
from kerb_sim.air.monitors import INTERFACE as MONITOR
from kerb_sim.air.monitors import Monitors
from kerb_sim.air.objects import ObjectTree, Properties
from kerb_sim.air.scan import ADAPTER, DEVICE, Scan

_MANAGER = "org.bluez.AdvertisementMonitorManager1"
_CHARACTERISTIC = "org.bluez.GattCharacteristic1"
_WRITABLE = {ADAPTER: {"Powered", "Alias"}, DEVICE: {"Trusted", "Blocked", "Alias"}}
_DBUS = "org.freedesktop.DBus"
_MATCHES = (
    f"type='signal',sender='{_DBUS}',interface='{_DBUS}',member='NameOwnerChanged'",
    f"type='signal',interface='{_DBUS}.ObjectManager'",
)

Handler = Callable[[Message], Awaitable[None]]


class Bluez:
    """One bluetoothd with its adapters; start() puts it on the bus, stop() lets it die."""

    def __init__(
        self,
        address: str,
        air: Air,
        adapters: tuple[str, ...] = ("hci0",),
        habits: Habits | None = None,
    ) -> None:
        self._address = address
        self._air = air
        self._adapters = adapters
        self._habits = habits or Habits()
        self._bus: MessageBus | None = None
        self._scans: dict[str, Scan] = {}
        self._jobs: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Appear on the bus as org.bluez."""
        bus = await MessageBus(bus_address=self._address, bus_type=BusType.SYSTEM).connect()
        self._bus = bus
        self.tree = ObjectTree(bus, _WRITABLE, self._on_set)
        self.links = Links(self.tree, self._air, self._habits)
        self._handlers = self._table()
        bus.add_message_handler(self._handle)
        for rule in _MATCHES:
            await bus.call(_add_match(rule))
        for index, name in enumerate(self._adapters):
            path = f"/org/bluez/{name}"
            self.tree.add(path, self._adapter_interfaces(name, index))
            self._scans[path] = Scan(self.tree, path, Monitors(self._call), self._habits)
            self._air.listen(name, self._scans[path].hear)
        await bus.request_name("org.bluez")
        self._sweeper = asyncio.ensure_future(self._sweep())

    async def stop(self) -> None:
        """Vanish from the bus, as a bluetoothd that died: every link breaks."""
        for name in self._adapters:
            self._air.listen(name, None)
        if self._bus is None:
            return
        self.links.drop("/org/bluez")
        if self._sweeper is not None:
            self._sweeper.cancel()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._bus.disconnect()
        self._bus = None
        self._scans.clear()

    def keep_back(self, work: Callable[[], None]) -> bytes:
        """Do `work` and return the signals that it makes, as the bytes of the bus."""
        if self._bus is None:
            raise RuntimeError("bluetoothd does not run")
        self.tree.held = []
        work()
        held, self.tree.held = self.tree.held, None
        for message in held:
            message.serial = self._bus.next_serial()
        return b"".join(message._marshall(False) for message in held)

    async def let_go(self, signals: bytes) -> None:
        """Send kept signals as fast as the bus takes them; returns when it has them all.

        Past dbus-fast's own queue, which ends the connection when the bus does not keep up.
        """
        if self._bus is None or self._bus._sock is None:
            raise RuntimeError("bluetoothd does not run")
        await asyncio.get_running_loop().sock_sendall(self._bus._sock, signals)
        # The bus answers a connection's messages in their order.
        await self._bus.call(Message(_DBUS, "/org/freedesktop/DBus", _DBUS, "GetId"))

    def power(self, adapter: str, on: bool) -> None:
        """Switch an adapter on or off, as rfkill or a pulled dongle would."""
        path = f"/org/bluez/{adapter}"
        self.tree.change(path, ADAPTER, {"Powered": Variant("b", on)})
        self._on_set(path, ADAPTER, "Powered", Variant("b", on))

    def _adapter_interfaces(self, name: str, index: int) -> dict[str, Properties]:
        interfaces = {
            ADAPTER: {
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
        if self._habits.passive:
            interfaces[_MANAGER] = {
                "SupportedMonitorTypes": Variant("as", ["or_patterns"]),
                "SupportedFeatures": Variant("as", []),
            }
        return interfaces

    def _on_set(self, path: str, interface: str, name: str, value: Variant) -> None:
        if interface == ADAPTER and name == "Powered" and not value.value:
            self._scans[path].powered_off()
            self.links.drop(path)

    async def _sweep(self) -> None:
        """Forget unpaired devices that were not heard for a while, as BlueZ does."""
        while True:
            await asyncio.sleep(min(1.0, self._habits.forget_s / 4))
            for path, scan in self._scans.items():
                scan.sweep({one for one in self.links.paths if one.startswith(path + "/")})

    # --- the bus ---

    def _handle(self, message: Message) -> Message | bool | None:
        if self._bus is None:
            return True  # it has died: an answer would go to a closed socket
        if message.message_type == MessageType.SIGNAL:
            if message.sender != self._bus.unique_name:
                self._signalled(message)
            return None
        if message.message_type != MessageType.METHOD_CALL or message.interface in (
            f"{_DBUS}.Introspectable",
            f"{_DBUS}.Peer",
        ):
            return None
        standard = self.tree.answer(message)
        if standard is not None:
            return standard
        job = asyncio.ensure_future(self._reply(message))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return True

    def _signalled(self, message: Message) -> None:
        """Follow the clients: who left, and which monitors they export."""
        client = str(message.sender)
        if message.member == "NameOwnerChanged" and not message.body[2]:
            self.links.vanished(message.body[0])
            for scan in self._scans.values():
                scan.vanished(message.body[0])
        elif message.member == "InterfacesAdded" and MONITOR in message.body[1]:
            for scan in self._scans.values():
                scan.monitors.exported(client, message.body[0], message.body[1][MONITOR])
        elif message.member == "InterfacesRemoved" and MONITOR in message.body[1]:
            for scan in self._scans.values():
                scan.monitors.withdrawn(client, message.body[0])

    def _call(self, client: str, path: str, member: str, signature: str, body: list[Any]) -> None:
        """Call a client's monitor; nothing is expected back."""
        if self._bus is not None:
            self._bus.send(
                Message(
                    client,
                    path,
                    MONITOR,
                    member,
                    flags=MessageFlag.NO_REPLY_EXPECTED,
                    signature=signature,
                    body=body,
                )
            )

    async def _reply(self, message: Message) -> None:
        path, called = str(message.path), f"{message.interface}.{message.member}"
        handler = self._handlers.get(called)
        try:
            if path not in self.tree.objects:
                reply = Message.new_error(message, f"{_DBUS}.Error.UnknownObject", path)
            elif handler is None or message.interface not in self.tree.objects[path]:
                reply = Message.new_error(message, f"{_DBUS}.Error.UnknownMethod", called)
            else:
                await handler(message)
                reply = Message.new_method_return(message)
        except BluezError as error:
            reply = Message.new_error(message, f"org.bluez.Error.{error.name}", error.text)
        if self._bus is not None:
            self._bus.send(reply)

    # --- what may be called ---

    def _table(self) -> dict[str, Handler]:
        return {
            f"{ADAPTER}.SetDiscoveryFilter": self._set_discovery_filter,
            f"{ADAPTER}.StartDiscovery": self._start_discovery,
            f"{ADAPTER}.StopDiscovery": self._stop_discovery,
            f"{ADAPTER}.RemoveDevice": self._remove_device,
            f"{_MANAGER}.RegisterMonitor": self._register_monitor,
            f"{_MANAGER}.UnregisterMonitor": self._unregister_monitor,
            f"{DEVICE}.Connect": self.links.connect,
            f"{DEVICE}.Disconnect": self.links.disconnect,
            f"{_CHARACTERISTIC}.WriteValue": self.links.write_value,
            f"{_CHARACTERISTIC}.StartNotify": self.links.start_notify,
            f"{_CHARACTERISTIC}.StopNotify": self.links.stop_notify,
        }

    def _ready(self, message: Message) -> Scan:
        if not self.tree.value(str(message.path), ADAPTER, "Powered"):
            raise BluezError(*NOT_READY)
        return self._scans[str(message.path)]

    async def _set_discovery_filter(self, message: Message) -> None:
        self._ready(message).set_filter(str(message.sender), message.body[0])

    async def _start_discovery(self, message: Message) -> None:
        self._ready(message).start(str(message.sender))

    async def _stop_discovery(self, message: Message) -> None:
        self._ready(message).stop(str(message.sender))

    async def _remove_device(self, message: Message) -> None:
        path = message.body[0]
        if DEVICE not in self.tree.objects.get(path, {}):
            raise BluezError("DoesNotExist", "Does Not Exist")
        self.links.drop(path)
        self._scans[str(message.path)].forget(path)

    async def _register_monitor(self, message: Message) -> None:
        self._scans[str(message.path)].monitors.register(str(message.sender), message.body[0])

    async def _unregister_monitor(self, message: Message) -> None:
        self._scans[str(message.path)].monitors.unregister(str(message.sender), message.body[0])


def _add_match(rule: str) -> Message:
    return Message(_DBUS, "/org/freedesktop/DBus", _DBUS, "AddMatch", signature="s", body=[rule])
