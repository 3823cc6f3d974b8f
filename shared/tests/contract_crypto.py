"""Golden vectors: RFC 3610, RFC 4493, BTHome."""

from aes import new_ecb
from kerb_wire import bthome, ccm, crc, keys
from kerb_wire.errors import RemoteFault


def h(text):
    return bytes.fromhex(text.replace(" ", ""))


# RFC 3610 section 8, packet vectors 1, 2, 3 (M = 8) and 7, 8 (M = 10):
# (nonce, whole packet, bytes of it that are only authenticated, M, result behind them)
RFC3610_KEY = h("c0c1c2c3c4c5c6c7c8c9cacbcccdcecf")
RFC3610 = (
    ("00000003020100a0a1a2a3a4a5", 31, 8, 8,
     "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0"),
    ("00000004030201a0a1a2a3a4a5", 32, 8, 8,
     "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916"),
    ("00000005040302a0a1a2a3a4a5", 33, 8, 8,
     "51b1e5f44a197d1da46b0f8e2d282ae871e838bb64da8596574adaa76fbd9fb0c5"),
    ("00000009080706a0a1a2a3a4a5", 31, 8, 10,
     "0135d1b2c95f41d5d1d4fec185d166b8094e999dfed96c048c56602c97acbb7490"),
    ("0000000a090807a0a1a2a3a4a5", 32, 8, 10,
     "7b75399ac0831dd2f0bbd75879a2fd8f6cae6b6cd9b7db24c17b4433f434963f34b4"),
)  # fmt: skip

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


def test_rfc3610():
    ecb = new_ecb(RFC3610_KEY)
    for nonce, size, clear, tag_bytes, wanted in RFC3610:
        packet = bytes(range(size))
        aad, text = packet[:clear], packet[clear:]
        cipher, tag = ccm.encrypt(ecb, h(nonce), text, aad, tag_bytes)
        assert cipher + tag == h(wanted), nonce
        assert ccm.decrypt(ecb, h(nonce), cipher, tag, aad, tag_bytes) == text


def test_ccm_refuses_every_changed_bit():
    ecb = new_ecb(RFC3610_KEY)
    nonce, size, clear, tag_bytes, _ = RFC3610[0]
    packet = bytes(range(size))
    cipher, tag = ccm.encrypt(ecb, h(nonce), packet[clear:], packet[:clear], tag_bytes)
    whole = cipher + tag
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << (bit % 8)
        try:
            ccm.decrypt(
                ecb, h(nonce), bytes(broken[:-8]), bytes(broken[-8:]), packet[:clear], tag_bytes
            )
        except RemoteFault as fault:
            assert fault.reason == "mic"
        else:
            raise AssertionError(f"bit {bit} was not noticed")


def test_the_peer_does_not_choose_the_tag_length():
    ecb = new_ecb(RFC3610_KEY)
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


def test_bthome_published_vector():
    ecb = new_ecb(h("231d39c1d7cc1ab1aee224cd096db932"))
    counter, text = bthome.unseal(ecb, h("5448e68f80a5"), h("41a47266c95f730011223378237214"))
    assert counter == 0x33221100
    assert bthome.decode_objects(text) == [(0x02, 2506), (0x03, 5055)]


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
