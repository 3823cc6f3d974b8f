"""The emulated org.bluez, asked by real bleak and by a bare D-Bus client: is it strict enough?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakClient, BleakScanner
from bleak.args.bluez import OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.exc import BleakError
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from kerb_sim.air import adstructure
from kerb_sim.air.bluez import Bluez
from kerb_sim.air.dbus_daemon import DbusDaemon
from kerb_sim.air.habits import Habits
from kerb_sim.air.medium import Advert, Air, Characteristic, Connection, Service, Station
from kerb_sim.air.scan import ADAPTER, DEVICE
from kerb_tools.system_parts import find_dbus_daemon
from kerb_wire import bthome, gatt
from streets import need

ADDRESS = "A4:CF:12:00:00:12"
OTHER = "A4:CF:12:00:00:16"
PATH = "/org/bluez/hci0/dev_A4_CF_12_00_00_12"
HCI0 = "/org/bluez/hci0"
MANAGER = "org.bluez.AdvertisementMonitorManager1"
MONITOR = "org.bluez.AdvertisementMonitor1"
CHARACTERISTIC = "org.bluez.GattCharacteristic1"
SERVICE_DATA = f"0000{bthome.UUID16:04x}-0000-1000-8000-00805f9b34fb"
OURS = OrPattern(0, AdvertisementDataType.SERVICE_DATA_UUID16, b"\xd2\xfc")
_DOWN_HANDLE, _UP_HANDLE = 18, 20
SETTLE_S = 0.1


def advert(number: int, address: str = ADDRESS, rssi: int = -60, uuid16: int = 0xFCD2) -> Advert:
    data = b"\x02\x01\x06\x05\x16" + uuid16.to_bytes(2, "little") + number.to_bytes(2, "big")
    return Advert(address, data, rssi, True)


class Echo(Station):
    """A peripheral with our two characteristics that notifies what is written to it."""

    def __init__(self) -> None:
        super().__init__(ADDRESS)
        self.mtu = 247
        self.connectable = True
        self.written: list[bytes] = []
        self.left = 0
        self.services = [
            Service(
                gatt.SERVICE_UUID,
                [
                    Characteristic(gatt.DOWN_UUID, 0x0C, _DOWN_HANDLE),
                    Characteristic(gatt.UP_UUID, 0x10, _UP_HANDLE),
                ],
            )
        ]

    def on_write(self, connection: Connection, handle: int, data: bytes) -> None:
        self.written.append(data)
        connection.notify(_UP_HANDLE, data)

    def on_disconnect(self, connection: Connection) -> None:
        self.left += 1
        self.connectable = True


class Client:
    """A bare D-Bus client of org.bluez."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus

    async def call(
        self, path: str, interface: str, member: str, *body: Any, sig: str = "",
        destination: str = "org.bluez",
    ) -> Any:  # fmt: skip
        """Return the reply's first value, or the error's name as text."""
        reply = await self.bus.call(
            Message(destination, path, interface, member, signature=sig, body=list(body))
        )
        assert reply is not None
        if reply.message_type == MessageType.ERROR:
            return reply.error_name
        return reply.body[0] if reply.body else None


class World:
    """A private bus with an emulated bluetoothd, and an air without losses."""

    def __init__(self, daemon: DbusDaemon, air: Air, bluez: Bluez) -> None:
        self.daemon, self.air, self.bluez = daemon, air, bluez
        self._clients: list[MessageBus] = []

    async def client(self) -> Client:
        bus = await MessageBus(bus_address=self.daemon.address, bus_type=BusType.SYSTEM).connect()
        self._clients.append(bus)
        return Client(bus)

    def say(self, *adverts: Advert) -> None:
        for one in adverts:
            # Past the medium's noise, so that the RSSI is what the test says.
            for hear in list(self.air._listeners.values()):
                hear(one)

    def value(self, name: str, path: str = HCI0, interface: str = ADAPTER) -> Any:
        return self.bluez.tree.value(path, interface, name)

    async def close(self) -> None:
        for bus in self._clients:
            bus.disconnect()
        await self.bluez.stop()
        await self.daemon.stop()


Story = Callable[[World], Awaitable[None]]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a story in a world of its own, with bleak's system bus being the private one."""

    def run(story: Story, habits: Habits | None = None, adapters: int = 1) -> None:
        async def whole() -> None:
            program = need("dbus-daemon", find_dbus_daemon())
            daemon = await DbusDaemon.start(program, tmp_path / "dbus")
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
            air = Air(1)
            names = tuple(f"hci{number}" for number in range(adapters))
            world = World(daemon, air, Bluez(daemon.address, air, names, habits))
            await world.bluez.start()
            try:
                async with asyncio.timeout(30):
                    await story(world)
            finally:
                await world.close()

        asyncio.run(whole())

    return run


class Ear:
    """Notes the service data that a bleak scanner hands over."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.addresses: list[str] = []

    def __call__(self, device: Any, data: Any) -> None:
        self.addresses.append(device.address)
        self.heard.extend(data.service_data.values())


@contextlib.asynccontextmanager
async def scanning(mode: str, duplicates: bool = False) -> AsyncIterator[Ear]:
    ear = Ear()
    bluez: dict[str, Any] = {"adapter": "hci0"}
    if mode == "passive":
        bluez["or_patterns"] = [OURS]
    elif duplicates:
        bluez["filters"] = {"DuplicateData": True}
    async with BleakScanner(ear, scanning_mode=mode, bluez=bluez):  # type: ignore[arg-type]
        await asyncio.sleep(SETTLE_S)  # a monitor is exported after its registration
        yield ear
        await asyncio.sleep(SETTLE_S)


# --- scanning ---


@pytest.mark.parametrize(
    ("mode", "duplicates", "times"),
    [("active", False, 1), ("active", True, 5), ("passive", False, 1)],
)
def test_the_same_bytes_are_heard_again_only_by_who_asked(
    tell: Callable[..., None], mode: str, duplicates: bool, times: int
) -> None:
    async def story(world: World) -> None:
        async with scanning(mode, duplicates) as ear:
            world.say(*[advert(7)] * 5)
        assert ear.heard == [b"\x00\x07"] * times

    tell(story)


@pytest.mark.parametrize("mode", ["active", "passive"])
def test_other_bytes_are_always_heard(tell: Callable[..., None], mode: str) -> None:
    async def story(world: World) -> None:
        async with scanning(mode) as ear:
            world.say(*[advert(number) for number in range(50)])
        assert [int.from_bytes(one, "big") for one in ear.heard] == list(range(50))

    tell(story)


def test_a_passive_scan_hears_only_its_patterns(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        async with scanning("passive") as ear:
            world.say(advert(1, OTHER, uuid16=0xFCD3), advert(2))
        assert ear.heard == [b"\x00\x02"]
        assert ear.addresses == [ADDRESS]

    tell(story)


def test_a_changed_level_brings_the_old_bytes_again(tell: Callable[..., None]) -> None:
    """Trap: a property change of 8 dB makes bleak report an advert that nobody sent now."""

    async def story(world: World) -> None:
        async with scanning("passive") as ear:
            world.say(advert(1, rssi=-60), advert(1, rssi=-67), advert(1, rssi=-68))
        assert ear.heard == [b"\x00\x01"] * 2  # at 8 dB, not at 7
        assert world.value("RSSI", PATH, DEVICE) == -68

    tell(story)


def test_an_old_kernel_hears_a_node_once_in_a_passive_scan(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        async with scanning("passive") as ear:
            world.say(advert(1), advert(2), advert(3, OTHER))
        assert ear.heard == [b"\x00\x01", b"\x00\x03"]

    tell(story, Habits(address_filter=True))


def test_monitors_are_activated_told_and_released(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        client = await world.client()
        told: list[tuple[str, str]] = []

        def note(message: Message) -> Any:
            if message.interface == MONITOR:
                told.append((str(message.path), str(message.member)))
                return True
            return None

        client.bus.add_message_handler(note)

        def export(path: str, content: bytes) -> None:
            rows = Variant("a(yyay)", [[0, 0x16, content]])
            properties = {"Type": Variant("s", "or_patterns"), "Patterns": rows}
            client.bus.send(
                Message.new_signal(
                    "/app",
                    "org.freedesktop.DBus.ObjectManager",
                    "InterfacesAdded",
                    "oa{sa{sv}}",
                    [path, {MONITOR: properties}],
                )
            )

        export("/app/early", b"\xd2\xfc")  # before the registration: nobody looks at it
        assert await client.call(HCI0, MANAGER, "RegisterMonitor", "/app", sig="o") is None
        again = await client.call(HCI0, MANAGER, "RegisterMonitor", "/app", sig="o")
        assert again == "org.bluez.Error.AlreadyExists"
        export("/app/good", b"\xd2\xfc")
        export("/app/empty", b"")
        await asyncio.sleep(SETTLE_S)
        world.say(advert(1), advert(2))
        await asyncio.sleep(SETTLE_S)
        assert told == [
            ("/app/good", "Activate"),
            ("/app/empty", "Release"),
            ("/app/good", "DeviceFound"),
        ]
        assert await client.call(HCI0, MANAGER, "UnregisterMonitor", "/app", sig="o") is None
        world.say(advert(3, OTHER))
        assert not [path for path in world.bluez.tree.objects if OTHER[-2:] in path]

    tell(story)


def test_a_client_that_left_no_longer_scans(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        client = await world.client()
        assert await client.call(HCI0, ADAPTER, "StartDiscovery") is None
        assert await client.call(HCI0, ADAPTER, "StartDiscovery") == "org.bluez.Error.InProgress"
        world.say(advert(1))
        assert world.value("Discovering")
        assert PATH in world.bluez.tree.objects
        client.bus.disconnect()
        await asyncio.sleep(SETTLE_S)
        assert not world.value("Discovering")
        assert "RSSI" not in world.bluez.tree.objects[PATH][DEVICE]
        world.say(advert(2, OTHER))
        assert not [path for path in world.bluez.tree.objects if OTHER[-2:] in path]

    tell(story)


def test_calls_that_a_dying_daemon_has_not_read_get_no_answer(
    tell: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """An answer to the second of them would go to a socket that the first one's has closed."""

    async def story(world: World) -> None:
        client = await world.client()
        for _ in range(5):
            client.bus.send(Message("org.bluez", HCI0, ADAPTER, "StartDiscovery"))
        time.sleep(SETTLE_S)  # noqa: ASYNC251  the bus hands them on; nobody here may read them
        await world.bluez.stop()
        await asyncio.sleep(SETTLE_S)

    tell(story)
    assert caplog.text == ""


def test_a_device_not_heard_is_forgotten_and_heard_anew(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        async with scanning("passive") as ear:
            world.say(advert(1), advert(1))
            await asyncio.sleep(0.8)
            assert PATH not in world.bluez.tree.objects
            world.say(advert(1))
        assert ear.heard == [b"\x00\x01"] * 2

    tell(story, Habits(forget_s=0.4))


def test_each_adapter_hears_for_itself(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        client = await world.client()
        assert await client.call("/org/bluez/hci1", ADAPTER, "StartDiscovery") is None
        world.say(advert(1))
        paths = [path for path in world.bluez.tree.objects if "dev_" in path]
        assert paths == [PATH.replace("hci0", "hci1")]
        world.air.deaf.add("hci1")
        world.air.inject(advert(2))
        held = world.bluez.tree.objects[paths[0]][DEVICE]["ServiceData"].value
        assert held[SERVICE_DATA].value == b"\x00\x01"

    tell(story, adapters=2)


def test_an_adapter_without_power_neither_scans_nor_connects(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        station = Echo()
        world.air.join(station)
        client = await world.client()
        await client.call(HCI0, ADAPTER, "StartDiscovery")
        world.say(advert(1))
        assert await client.call(PATH, DEVICE, "Connect") is None
        set_power = ("org.freedesktop.DBus.Properties", "Set", ADAPTER, "Powered")
        assert await client.call(HCI0, *set_power, Variant("b", False), sig="ssv") is None
        assert station.left == 1
        assert not world.value("Discovering")
        assert not world.value("Connected", PATH, DEVICE)
        assert await client.call(HCI0, ADAPTER, "StartDiscovery") == "org.bluez.Error.NotReady"
        assert await client.call(PATH, DEVICE, "Connect") == "org.bluez.Error.NotReady"
        assert await client.call(HCI0, *set_power, Variant("b", True), sig="ssv") is None
        assert not world.value("Discovering")  # who wants to discover asks again
        assert await client.call(HCI0, ADAPTER, "StartDiscovery") is None

    tell(story)


def test_properties_are_what_they_are(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        client = await world.client()
        properties = "org.freedesktop.DBus.Properties"
        unknown = await client.call(HCI0, properties, "Get", ADAPTER, "Colour", sig="ss")
        assert unknown == "org.freedesktop.DBus.Error.UnknownProperty"
        fixed = await client.call(
            HCI0, properties, "Set", ADAPTER, "Address", Variant("s", "x"), sig="ssv"
        )
        assert fixed == "org.freedesktop.DBus.Error.PropertyReadOnly"
        kind = await client.call(
            HCI0, properties, "Set", ADAPTER, "Powered", Variant("s", "x"), sig="ssv"
        )
        assert kind == "org.freedesktop.DBus.Error.InvalidArgs"
        nothing = await client.call(HCI0, ADAPTER, "Connect")
        assert nothing == "org.freedesktop.DBus.Error.UnknownMethod"
        nobody = await client.call("/org/bluez/hci9", ADAPTER, "StartDiscovery")
        assert nobody == "org.freedesktop.DBus.Error.UnknownObject"
        gone = await client.call(HCI0, ADAPTER, "RemoveDevice", PATH, sig="o")
        assert gone == "org.bluez.Error.DoesNotExist"

    tell(story)


# --- connections ---


async def found(world: World) -> Any:
    """Let bleak find the station and return its device."""
    ear: list[Any] = []
    async with BleakScanner(lambda device, data: ear.append(device), bluez={"adapter": "hci0"}):
        world.say(advert(1))
        await asyncio.sleep(SETTLE_S)
    return ear[0]


def test_write_notify_and_both_ways_to_part(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        station = Echo()
        world.air.join(station)
        device = await found(world)
        gone = asyncio.Event()
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        async with BleakClient(device, disconnected_callback=lambda _: gone.set()) as client:
            down = client.services.get_characteristic(gatt.DOWN_UUID)
            assert down is not None
            assert down.max_write_without_response_size == 247 - 3
            await client.start_notify(gatt.UP_UUID, lambda _, data: heard.put_nowait(bytes(data)))
            await client.write_gatt_char(down, bytes(244), response=True)
            assert await heard.get() == bytes(244)
            with pytest.raises(BleakError, match=r"InProgress|already"):
                await client.start_notify(gatt.UP_UUID, lambda _, data: None)
        assert station.left == 1
        assert gone.is_set()
        gone.clear()
        async with BleakClient(device, disconnected_callback=lambda _: gone.set()):
            assert station.connection is not None
            station.connection.close()
            await gone.wait()
        assert station.left == 2
        assert not [path for path in world.bluez.tree.objects if "service" in path]

    tell(story)


def test_gatt_refuses_what_is_not_offered(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        station = Echo()
        world.air.join(station)
        device = await found(world)
        async with BleakClient(device) as client:
            for uuid, size, response in (
                (gatt.UP_UUID, 5, True),  # it only notifies
                (gatt.DOWN_UUID, 245, True),  # beyond the MTU: prepared writes
                (gatt.DOWN_UUID, 245, False),
                (gatt.DOWN_UUID, 513, True),  # beyond any attribute
            ):
                with pytest.raises(BleakError):
                    await client.write_gatt_char(uuid, bytes(size), response=response)
            with pytest.raises(BleakError):
                await client.start_notify(gatt.DOWN_UUID, lambda _, data: None)
            assert client.is_connected
        assert station.written == []

    tell(story)


def test_disconnect_ends_a_pending_connect(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        device = await found(world)
        with pytest.raises(TimeoutError):
            await BleakClient(device, timeout=0.3).connect()  # bleak cancels by Disconnect
        await asyncio.sleep(SETTLE_S)
        station = Echo()
        world.air.join(station)
        await asyncio.sleep(0.4)
        assert station.connection is None  # no ghost takes the door
        assert not world.value("Connected", PATH, DEVICE)

    tell(story)


def test_a_silent_board_is_given_up(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        device = await found(world)
        with pytest.raises(BleakError, match="le-connection-timeout"):
            await BleakClient(device, timeout=5).connect()

    tell(story, Habits(connect_timeout_s=0.3))


def test_a_board_that_falls_asleep_while_connecting_is_not_connected(
    tell: Callable[..., None],
) -> None:
    async def story(world: World) -> None:
        station = Echo()
        world.air.join(station)
        device = await found(world)
        attempt = asyncio.ensure_future(BleakClient(device, timeout=5).connect())
        while not world.bluez.links.paths:
            await asyncio.sleep(0.001)
        world.air.leave(station)
        with pytest.raises(BleakError, match="le-connection-timeout"):
            await attempt

    tell(story, Habits(connect_timeout_s=0.5))


def test_advertising_data_is_read_as_far_as_it_is_whole() -> None:
    data = bytes.fromhex("020106 0416d2fc01 050941424344 03ffabcd 020af6 0303d2fc 0916d2")
    structures = adstructure.split(data)
    assert adstructure.service_data(structures) == {SERVICE_DATA: b"\x01"}
    assert adstructure.name(structures) == "ABCD"
    assert adstructure.manufacturer_data(structures) == {0xCDAB: b""}
    assert adstructure.tx_power(structures) == -10
    assert adstructure.service_uuids(structures) == [SERVICE_DATA]
    long_uuid = bytes(range(16))
    structures = adstructure.split(bytes([18, 0x21]) + long_uuid + b"\x05")
    assert adstructure.service_data(structures) == {
        "0f0e0d0c-0b0a-0908-0706-050403020100": b"\x05"
    }
