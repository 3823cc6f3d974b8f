"""AES-CCM on top of whatever AES-ECB primitive is handed in.

Rule: `ecb` is a function from one 16-byte block to its encryption; this file knows no key, and
a wrong MIC yields no plaintext.

Source: RFC 3610; a 13-byte nonce, hence a length field of two bytes (L = 2).
"""

from kerb_wire.errors import MIC, TRUNCATED, LocalFault, RemoteFault

BLOCK_BYTES = 16
NONCE_BYTES = 13
_TAGS_BYTES = (4, 6, 8, 10, 12, 14, 16)


def _xor(left: bytes, right: bytes) -> bytes:
    """Return the XOR of two, the second as far as the first goes."""
    size = len(left)
    number = int.from_bytes(left, "big") ^ int.from_bytes(right[:size], "big")
    return number.to_bytes(size, "big")


def _pad(data: bytes) -> bytes:
    short = len(data) % BLOCK_BYTES
    return data + bytes(BLOCK_BYTES - short) if short else data


def _check(nonce: bytes, data: bytes, aad: bytes, tag_bytes: int) -> None:
    if len(nonce) != NONCE_BYTES:
        raise LocalFault("nonce", len(nonce), f"{NONCE_BYTES} bytes")
    if tag_bytes not in _TAGS_BYTES:
        raise LocalFault("tag_bytes", tag_bytes, "4, 6, 8, 10, 12, 14 or 16")
    if len(data) > 0xFFFF:
        raise LocalFault("data", len(data), "at most 65535 bytes")
    if len(aad) >= 0xFF00:
        raise LocalFault("aad", len(aad), "fewer than 65280 bytes")


def _mac(ecb, nonce: bytes, data: bytes, aad: bytes, tag_bytes: int) -> bytes:
    flags = (0x40 if aad else 0) | ((tag_bytes - 2) // 2 << 3) | 1
    blocks = bytes([flags]) + nonce + bytes([len(data) >> 8, len(data) & 0xFF])
    if aad:
        blocks += _pad(bytes([len(aad) >> 8, len(aad) & 0xFF]) + aad)
    blocks += _pad(data)
    state = bytes(BLOCK_BYTES)
    for at in range(0, len(blocks), BLOCK_BYTES):
        state = ecb(_xor(state, blocks[at : at + BLOCK_BYTES]))
    return state[:tag_bytes]


def _stream(ecb, nonce: bytes, index: int) -> bytes:
    return ecb(b"\x01" + nonce + bytes([index >> 8, index & 0xFF]))


def _crypt(ecb, nonce: bytes, data: bytes) -> bytes:
    out = b""
    for at in range(0, len(data), BLOCK_BYTES):
        pad = _stream(ecb, nonce, at // BLOCK_BYTES + 1)
        out += _xor(data[at : at + BLOCK_BYTES], pad)
    return out


def encrypt(
    ecb, nonce: bytes, plaintext: bytes, aad: bytes = b"", tag_bytes: int = 4
) -> tuple[bytes, bytes]:
    """Return (ciphertext, tag); the nonce (13 bytes) must never repeat under one key."""
    _check(nonce, plaintext, aad, tag_bytes)
    tag = _mac(ecb, nonce, plaintext, aad, tag_bytes)
    return _crypt(ecb, nonce, plaintext), _xor(tag, _stream(ecb, nonce, 0))


def decrypt(
    ecb, nonce: bytes, ciphertext: bytes, tag: bytes, aad: bytes = b"", tag_bytes: int = 4
) -> bytes:
    """Return the plaintext; RemoteFault(MIC) if it or `aad` was altered.

    tag_bytes: the length that the protocol states. The peer does not choose how much of a tag
    is checked: a tag of another length is refused as truncated.
    """
    _check(nonce, ciphertext, aad, tag_bytes)
    if len(tag) != tag_bytes:
        raise RemoteFault(TRUNCATED, f"a MIC of {len(tag)}, not {tag_bytes} bytes")
    plaintext = _crypt(ecb, nonce, ciphertext)
    wanted = _xor(_mac(ecb, nonce, plaintext, aad, tag_bytes), _stream(ecb, nonce, 0))
    if not same(wanted, tag):
        raise RemoteFault(MIC, "the message integrity code does not match")
    return plaintext


def opener(ecb, tag_bytes: int):
    """Return decrypt() under one key, as a function of (nonce, ciphertext, tag, aad).

    A host may put its own cipher in this place; it must refuse what this one refuses.
    """
    return lambda nonce, ciphertext, tag, aad=b"": decrypt(
        ecb, nonce, ciphertext, tag, aad, tag_bytes
    )


def same(left: bytes, right: bytes) -> bool:
    """Compare two byte strings in a time that does not depend on where they differ."""
    if len(left) != len(right):
        return False
    difference = 0
    for a, b in zip(left, right):
        difference |= a ^ b
    return difference == 0
