"""Golden vectors: RFC 3610, RFC 4493, BTHome."""

from aes import new_ecb
from kerb_wire import bthome, ccm, crc, keys
from kerb_wire.errors import RemoteFault
from rfc3610 import VECTORS


def h(text):
    return bytes.fromhex(text.replace(" ", ""))


# RFC 4493 section 4.
RFC4493_KEY = h("2b7e151628aed2a6abf7158809cf4f3c")
RFC4493 = (
    ("", "bb1d6929e95937287fa37d129b756746"),
    ("6bc1bee22e409f96e93d7e117393172a", "070a16b46b4d4144f79bdd9dd04a287c"),
    ("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
     "dfa66747de9ae63030ca32611497c827"),
    ("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
     "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
     "51f0bebf7e3b9d92fc49741779363cfe"),
)  # fmt: skip


def vector(number):
    """Return (ecb, nonce, aad, MIC bytes, plaintext, ciphertext and MIC) of a packet vector."""
    key, nonce, aad, tag_bytes, text, wanted = VECTORS[number - 1]
    return new_ecb(h(key)), h(nonce), h(aad), tag_bytes, h(text), h(wanted)


def test_rfc3610():
    assert len(VECTORS) == 24
    for number in range(1, 25):
        ecb, nonce, aad, tag_bytes, text, wanted = vector(number)
        cipher, tag = ccm.encrypt(ecb, nonce, text, aad, tag_bytes)
        assert cipher + tag == wanted, number
        assert ccm.decrypt(ecb, nonce, cipher, tag, aad, tag_bytes) == text, number


def test_ccm_refuses_every_changed_bit():
    ecb, nonce, aad, tag_bytes, _, wanted = vector(1)
    whole = nonce + aad + wanted
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << (bit % 8)
        broken = bytes(broken)
        rest = broken[len(nonce) + len(aad) :]
        try:
            ccm.decrypt(
                ecb,
                broken[: len(nonce)],
                rest[:-tag_bytes],
                rest[-tag_bytes:],
                broken[len(nonce) : len(nonce) + len(aad)],
                tag_bytes,
            )
        except RemoteFault as fault:
            assert fault.reason == "mic"
        else:
            raise AssertionError(f"bit {bit} was not noticed")


def test_the_peer_does_not_choose_the_tag_length():
    ecb = new_ecb(bytes(range(16)))
    nonce = bytes(13)
    cipher, tag = ccm.encrypt(ecb, nonce, b"secret", b"", 8)
    for size in range(8):
        try:
            ccm.decrypt(ecb, nonce, cipher, tag[:size], b"", 8)
        except RemoteFault as fault:
            assert fault.reason == "truncated"
        else:
            raise AssertionError(f"a tag of {size} bytes was taken")


def test_rfc4493():
    ecb = new_ecb(RFC4493_KEY)
    for message, wanted in RFC4493:
        assert keys.cmac(ecb, h(message)) == h(wanted)


BTHOME_ADDRESS = h("5448e68f80a5")
BTHOME_DATA = h("41a47266c95f730011223378237214")


def test_bthome_published_vector():
    ecb = new_ecb(h("231d39c1d7cc1ab1aee224cd096db932"))
    counter, text = bthome.unseal(ecb, BTHOME_ADDRESS, BTHOME_DATA)
    assert counter == 0x33221100
    assert bthome.decode_objects(text) == [(0x02, 2506), (0x03, 5055)]
    assert bthome.encode_objects([(0x02, 2506), (0x03, 5055)]) == text
    assert bthome.seal(ecb, BTHOME_ADDRESS, counter, text) == BTHOME_DATA


def test_an_advert_refuses_every_changed_bit_and_every_cut():
    ecb = new_ecb(h("231d39c1d7cc1ab1aee224cd096db932"))
    cases = [BTHOME_DATA[:size] for size in range(len(BTHOME_DATA))] + [BTHOME_DATA + b"\x00"]
    for bit in range(8 * len(BTHOME_DATA)):
        broken = bytearray(BTHOME_DATA)
        broken[bit // 8] ^= 1 << (bit % 8)
        cases.append(bytes(broken))
    for data in cases:
        try:
            bthome.unseal(ecb, BTHOME_ADDRESS, data)
        except RemoteFault as fault:
            assert fault.blame == "remote"
        else:
            raise AssertionError(f"{data!r} was taken")
    try:
        bthome.unseal(ecb, BTHOME_ADDRESS[:5] + b"\xa6", BTHOME_DATA)
    except RemoteFault as fault:
        assert fault.reason == "mic"
    else:
        raise AssertionError("another node's address was taken")


def test_modbus_crc():
    # Modbus over Serial Line V1.02, appendix B: 02 07 gives 41 12 on the wire.
    assert crc.crc16_modbus(h("0207")) == 0x1241
    assert crc.crc32(b"123456789") == 0xCBF43926


def test_keys_have_one_use_each():
    root = bytes(range(16))
    made = [
        keys.advert_key(new_ecb, root, 1),
        keys.advert_key(new_ecb, root, 2),
        keys.up_key(new_ecb, root),
        keys.down_key(new_ecb, root),
    ]
    assert len({bytes(key) for key in made}) == 4
