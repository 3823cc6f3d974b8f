"""A receiver that is not ours reads our adverts: bthome-ble, which Home Assistant uses."""

from __future__ import annotations

from aes import new_ecb
from bleak.backends.device import BLEDevice
from bthome_ble import BTHomeBluetoothDeviceData
from habluetooth import BluetoothServiceInfoBleak
from kerb_wire import advert, bthome, keys, records

ADDRESS = bytes.fromhex("a4cf12000012")


def test_a_bthome_receiver_understands_our_adverts() -> None:
    key = keys.advert_key(new_ecb, bytes(range(16)), 77)
    packed = records.pack_fill(1, 41, 9, 1234, 3, 0, -85, 90, 0, 7, 7, 1, 3)
    objects = advert.objects_of(records.unpack(packed), 77)
    sealed = bthome.seal(new_ecb(key), ADDRESS, 41, objects)
    receiver = BTHomeBluetoothDeviceData(bindkey=key)
    update = receiver.update(
        BluetoothServiceInfoBleak(
            name="node",
            address="A4:CF:12:00:00:12",
            rssi=-60,
            manufacturer_data={},
            service_data={"0000fcd2-0000-1000-8000-00805f9b34fb": sealed},
            service_uuids=["0000fcd2-0000-1000-8000-00805f9b34fb"],
            source="test",
            device=BLEDevice("A4:CF:12:00:00:12", "node", {}),
            advertisement=None,
            connectable=False,
            time=0.0,
            tx_power=None,
        )
    )
    values = {one.device_key.key: one.native_value for one in update.entity_values.values()}
    assert receiver.bindkey_verified
    assert values["distance"] == 1234
    assert values["temperature"] == -8.5
    assert values["battery"] == 90
