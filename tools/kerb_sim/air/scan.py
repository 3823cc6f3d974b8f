"""One adapter's scan: which adverts become Device1 objects and which signals say so.

Rule: bluetoothd signals what *changed*. The same service data again is silence, unless a client
that discovers has asked for DuplicateData; an RSSI counts as changed from 8 dB on.

Source: BlueZ 5.66, src/adapter.c (btd_adapter_device_found) and src/device.c (RSSI_THRESHOLD);
Linux, net/bluetooth/hci_sync.c (the duplicate filter, commit b5431dc2803a).
"""

from __future__ import annotations

import asyncio
from typing import Any

from dbus_fast import Variant

from kerb_sim.air import adstructure
from kerb_sim.air.errors import BluezError
from kerb_sim.air.habits import SCAN_S, Habits
from kerb_sim.air.medium import Advert
from kerb_sim.air.monitors import Monitors
from kerb_sim.air.objects import ObjectTree, Properties

ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
_RSSI_STEP_DB = 8


class Scan:
    """Hears for one adapter, on behalf of the clients that discover and of the monitors."""

    def __init__(self, tree: ObjectTree, path: str, monitors: Monitors, habits: Habits) -> None:
        self._tree = tree
        self._path = path
        self.monitors = monitors
        self._habits = habits
        self._filters: dict[str, dict[str, Variant]] = {}
        self._clients: set[str] = set()
        self._heard_at: dict[str, float] = {}
        self._reported: dict[str, float] = {}

    # --- discovery sessions ---

    def set_filter(self, client: str, rows: dict[str, Variant]) -> None:
        """Set a client's discovery filter; it lives until the client leaves."""
        self._filters[client] = rows

    def start(self, client: str) -> None:
        """Begin a client's discovery."""
        if client in self._clients:
            raise BluezError("InProgress", "Operation already in progress")
        self._clients.add(client)
        self._reported.clear()
        self._discovering()

    def stop(self, client: str) -> None:
        """End a client's discovery."""
        if client not in self._clients:
            raise BluezError("Failed", "No discovery started")
        self._clients.discard(client)
        self._ended()

    def vanished(self, client: str) -> None:
        """A client left the bus."""
        self._filters.pop(client, None)
        self.monitors.vanished(client)
        if client in self._clients:
            self._clients.discard(client)
            self._ended()

    def powered_off(self) -> None:
        """The adapter was switched off: every discovery ends, monitors stay for its return."""
        if self._clients:
            self._clients.clear()
            self._ended()
        self._reported.clear()

    def _ended(self) -> None:
        self._discovering()
        if self._clients:
            return
        for device in self._devices():
            self._tree.invalidate(device, DEVICE, "RSSI")
            self._tree.invalidate(device, DEVICE, "TxPower")

    def _discovering(self) -> None:
        on = bool(self._clients)
        if self._tree.value(self._path, ADAPTER, "Discovering") != on:
            self._tree.change(self._path, ADAPTER, {"Discovering": Variant("b", on)})

    # --- adverts ---

    def hear(self, advert: Advert) -> None:
        """Take one advertising event."""
        if not self._tree.value(self._path, ADAPTER, "Powered"):
            return
        if not self._clients and not self.monitors:
            return
        if self._habits.address_filter and self._filtered(advert.address):
            return
        structures = adstructure.split(advert.data)
        matching = self.monitors.matching(structures)
        if not self._clients and not matching:
            return
        device = f"{self._path}/dev_{advert.address.replace(':', '_')}"
        self._heard_at[device] = asyncio.get_running_loop().time()
        held = self._tree.objects.get(device, {}).get(DEVICE)
        if held is None:
            new = _new_device(self._path, advert) | self._changes({}, advert, structures)
            self._tree.add(device, {DEVICE: new})
        else:
            self._tree.change(device, DEVICE, self._changes(held, advert, structures))
        self.monitors.tell(matching, device)

    def _filtered(self, address: str) -> bool:
        """Tell whether the controller's duplicate filter keeps an address's advert back."""
        now = asyncio.get_running_loop().time()
        before = self._reported.setdefault(address, now)
        if before == now:
            return False
        if self._clients and now - before >= SCAN_S:
            self._reported[address] = now
            return False
        return True

    def _wants_duplicates(self) -> bool:
        asked = [self._filters.get(client, {}).get("DuplicateData") for client in self._clients]
        return any(one is not None and one.value for one in asked)

    def _changes(
        self, held: Properties, advert: Advert, structures: adstructure.Structures
    ) -> Properties:
        duplicates = self._wants_duplicates()
        changed = _advertised(structures)
        service_data = adstructure.service_data(structures)
        if service_data:
            kept = held["ServiceData"].value if "ServiceData" in held else {}
            new = {uuid: Variant("ay", data) for uuid, data in service_data.items()}
            changed["ServiceData"] = Variant("a{sv}", kept | new)
        changed = {
            name: value
            for name, value in changed.items()
            if duplicates or name not in held or _plain(held[name]) != _plain(value)
        }
        step_db = 0 if duplicates else _RSSI_STEP_DB
        if "RSSI" not in held or abs(held["RSSI"].value - advert.rssi) >= step_db:
            changed["RSSI"] = Variant("n", advert.rssi)
        return changed

    # --- devices ---

    def sweep(self, connected: set[str]) -> None:
        """Forget the devices that were not heard for a while and are not connected."""
        now = asyncio.get_running_loop().time()
        for device in connected:
            self._heard_at[device] = now
        for device, heard in list(self._heard_at.items()):
            if now - heard > self._habits.forget_s:
                self.forget(device)

    def forget(self, device: str) -> None:
        """Remove a device's object."""
        self._heard_at.pop(device, None)
        self.monitors.forget(device)
        self._tree.remove(device)

    def _devices(self) -> list[str]:
        return [path for path in self._tree.below(self._path) if path.count("/") == 4]


def _new_device(adapter: str, advert: Advert) -> Properties:
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
        "Adapter": Variant("o", adapter),
    }


def _advertised(structures: adstructure.Structures) -> Properties:
    """Return what an advert says beside its service data."""
    said: Properties = {}
    name, tx_power = adstructure.name(structures), adstructure.tx_power(structures)
    if name is not None:
        said["Name"] = said["Alias"] = Variant("s", name)
    if tx_power is not None:
        said["TxPower"] = Variant("n", tx_power)
    uuids = adstructure.service_uuids(structures)
    if uuids:
        said["UUIDs"] = Variant("as", uuids)
    manufacturer = adstructure.manufacturer_data(structures)
    if manufacturer:
        rows = {number: Variant("ay", data) for number, data in manufacturer.items()}
        said["ManufacturerData"] = Variant("a{qv}", rows)
    return said


def _plain(variant: Variant) -> Any:
    if isinstance(variant.value, dict):
        return {key: value.value for key, value in variant.value.items()}
    return variant.value
