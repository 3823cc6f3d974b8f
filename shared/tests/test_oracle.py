"""Code that is not ours agrees: bthome-ble, which Home Assistant uses, and cryptography's AES-CCM.

Rule: an oracle checks the golden vectors too, so that only true ones stand in this folder.
"""

from __future__ import annotations

import contract_crypto
import pytest
from aes import new_ecb
from bleak.backends.device import BLEDevice
from bthome_ble import BTHomeBluetoothDeviceData
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from habluetooth import BluetoothServiceInfoBleak
from hypothesis import given, settings
from hypothesis import strategies as st
from kerb_wire import advert, bthome, ccm, keys, records
from rfc3610 import VECTORS

ADDRESS = bytes.fromhex("a4cf12000012")


def heard(bindkey: bytes, address: bytes, sealed: bytes) -> dict[str, object]:
    """Return what bthome-ble reads in encrypted service data, by its names."""
    printed = ":".join(f"{octet:02X}" for octet in address)
    receiver = BTHomeBluetoothDeviceData(bindkey=bindkey)
    update = receiver.update(
        BluetoothServiceInfoBleak(
            name="node",
            address=printed,
            rssi=-60,
            manufacturer_data={},
            service_data={"0000fcd2-0000-1000-8000-00805f9b34fb": sealed},
            service_uuids=["0000fcd2-0000-1000-8000-00805f9b34fb"],
            source="test",
            device=BLEDevice(printed, "node", {}),
            advertisement=None,
            connectable=False,
            time=0.0,
            tx_power=None,
        )
    )
    assert receiver.bindkey_verified
    return {one.device_key.key: one.native_value for one in update.entity_values.values()}


def test_a_bthome_receiver_understands_our_adverts() -> None:
    key = keys.advert_key(new_ecb, bytes(range(16)), 77)
    packed = records.pack_fill(1, 41, 9, 1234, 3, 0, -85, 90, 0, 7, 7, 1, 3)
    objects = advert.objects_of(records.unpack(packed), 77)
    values = heard(key, ADDRESS, bthome.seal(new_ecb(key), ADDRESS, 41, objects))
    assert values["distance"] == 1234
    assert values["temperature"] == -8.5
    assert values["battery"] == 90


def test_the_published_bthome_vector_is_true() -> None:
    key = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
    values = heard(key, contract_crypto.BTHOME_ADDRESS, contract_crypto.BTHOME_DATA)
    assert values["temperature"] == 25.06
    assert values["humidity"] == 50.55


@pytest.mark.parametrize("number", range(1, len(VECTORS) + 1))
def test_the_rfc3610_vectors_are_true(number: int) -> None:
    key, nonce, aad, tag_bytes, text, wanted = VECTORS[number - 1]
    whole = AESCCM(bytes.fromhex(key), tag_length=tag_bytes).encrypt(
        bytes.fromhex(nonce), bytes.fromhex(text), bytes.fromhex(aad)
    )
    assert whole.hex() == wanted


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=13, max_size=13),
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.sampled_from([4, 6, 8, 10, 12, 14, 16]),
)
def test_our_ccm_is_everybodys(
    key: bytes, nonce: bytes, text: bytes, aad: bytes, tag_bytes: int
) -> None:
    cipher, tag = ccm.encrypt(new_ecb(key), nonce, text, aad, tag_bytes)
    assert cipher + tag == AESCCM(key, tag_length=tag_bytes).encrypt(nonce, text, aad)
