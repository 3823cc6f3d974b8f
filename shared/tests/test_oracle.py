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
from kerb_gateway.crypto import ccm_opener
from kerb_wire import advert, bthome, ccm, keys, records
from kerb_wire.errors import RemoteFault
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


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=13, max_size=13),
    st.binary(max_size=60),
    st.binary(max_size=20),
    st.sampled_from([4, 8]),
    st.integers(0, 90 * 8),
)
def test_the_hosts_quick_cipher_says_what_ours_says(
    key: bytes, nonce: bytes, text: bytes, aad: bytes, tag_bytes: int, bit: int
) -> None:
    """Also of every altered message: bit (if there is one of that number) is turned over."""
    cipher, tag = ccm.encrypt(new_ecb(key), nonce, text, aad, tag_bytes)
    whole = bytearray(nonce + cipher + tag + aad)
    if bit < 8 * len(whole):
        whole[bit // 8] ^= 1 << bit % 8
    cut = 13 + len(cipher), 13 + len(cipher) + tag_bytes
    parts = [bytes(one) for one in (whole[:13], whole[13 : cut[0]], whole[cut[0] : cut[1]])]
    said = []
    for decrypt in (ccm.opener(new_ecb(key), tag_bytes), ccm_opener(key, tag_bytes)):
        for shortened in (parts[2], parts[2][:-1]):
            try:
                said.append(decrypt(parts[0], parts[1], shortened, bytes(whole[cut[1] :])))
            except RemoteFault as fault:
                said.append(str(fault))
    assert said[:2] == said[2:]
    assert (said[0] == text) == (bit >= 8 * len(whole))
