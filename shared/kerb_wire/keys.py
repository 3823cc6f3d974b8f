"""Keys from one root key a node: AES-CMAC over a label and a context.

Rule: `new_ecb(key)` (16 bytes -> function from block to block) is handed in; nothing here keeps
a key. One key has one use; the label says which.

Sources: RFC 4493 (AES-CMAC); NIST SP 800-108 for a MAC as a key derivation function.
"""

import struct

from kerb_wire.errors import LocalFault
from kerb_wire.layout import is_whole
from kerb_wire.limits import SEQ_MAX

KEY_BYTES = 16
_BLOCK_BYTES = 16


def _double(block: bytes) -> bytes:
    value = int.from_bytes(block, "big") << 1
    if value >> 128:
        value ^= 0x87
    return (value & ((1 << 128) - 1)).to_bytes(_BLOCK_BYTES, "big")


def cmac(ecb, message: bytes) -> bytes:
    """Return the 16-byte AES-CMAC of `message` (any length) under the key inside `ecb`."""
    first = _double(ecb(bytes(_BLOCK_BYTES)))
    whole = len(message) > 0 and len(message) % _BLOCK_BYTES == 0
    count = max(1, (len(message) + _BLOCK_BYTES - 1) // _BLOCK_BYTES)
    last = message[(count - 1) * _BLOCK_BYTES :]
    if whole:
        mask = first
    else:
        mask = _double(first)
        last = last + b"\x80" + bytes(_BLOCK_BYTES - 1 - len(last))
    state = bytes(_BLOCK_BYTES)
    for index in range(count - 1):
        block = message[index * _BLOCK_BYTES : (index + 1) * _BLOCK_BYTES]
        state = ecb(bytes(a ^ b for a, b in zip(state, block)))
    return ecb(bytes(a ^ b ^ c for a, b, c in zip(state, last, mask)))


def derive(new_ecb, key: bytes, label: bytes, context: bytes = b"") -> bytes:
    """Return a 16-byte key for the use that `label` (ASCII bytes) names."""
    if len(key) != KEY_BYTES:
        raise LocalFault("key", len(key), f"{KEY_BYTES} bytes")
    return cmac(new_ecb(key), b"kerb1 " + label + b"\x00" + context)


def advert_key(new_ecb, root_key: bytes, epoch: int) -> bytes:
    """Return k_advert, the BTHome bind key of one epoch (u32)."""
    if not is_whole(epoch, 0, SEQ_MAX):
        raise LocalFault("epoch", epoch, "a u32")
    return derive(new_ecb, root_key, b"advert", struct.pack("<I", epoch))


def up_key(new_ecb, root_key: bytes) -> bytes:
    """Return k_up: what the node says in a session starts from it."""
    return derive(new_ecb, root_key, b"up")


def down_key(new_ecb, root_key: bytes) -> bytes:
    """Return k_down: what the gateway says in a session starts from it."""
    return derive(new_ecb, root_key, b"down")
