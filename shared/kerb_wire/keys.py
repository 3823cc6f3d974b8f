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


def _double(number: int) -> int:
    number <<= 1
    return number ^ (1 << 128 | 0x87) if number >> 128 else number


def _number(block: bytes) -> int:
    return int.from_bytes(block, "big")


def cmac(ecb, message: bytes) -> bytes:
    """Return the 16-byte AES-CMAC of `message` (any length) under the key inside `ecb`."""
    mask = _double(_number(ecb(bytes(_BLOCK_BYTES))))
    count = max(1, (len(message) + _BLOCK_BYTES - 1) // _BLOCK_BYTES)
    last = message[(count - 1) * _BLOCK_BYTES :]
    if len(last) < _BLOCK_BYTES:
        mask = _double(mask)
        last = last + b"\x80" + bytes(_BLOCK_BYTES - 1 - len(last))
    state = 0
    for at in range(0, (count - 1) * _BLOCK_BYTES, _BLOCK_BYTES):
        state ^= _number(message[at : at + _BLOCK_BYTES])
        state = _number(ecb(state.to_bytes(_BLOCK_BYTES, "big")))
    return ecb((state ^ _number(last) ^ mask).to_bytes(_BLOCK_BYTES, "big"))


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
