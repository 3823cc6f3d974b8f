"""AES for the host: the ECB primitive that kerb_wire asks for, and its CCM in one call.

Rule: keys are held in memory only, by their owners; nothing here logs.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from kerb_wire.ccm import NONCE_BYTES
from kerb_wire.errors import MIC, TRUNCATED, LocalFault, RemoteFault

Ecb = Callable[[bytes], bytes]
Decrypt = Callable[..., bytes]  # (nonce, ciphertext, tag, aad)


def new_ecb(key: bytes) -> Ecb:
    """Return the function that encrypts one 16-byte block under `key`."""
    # ECB of single blocks is the building stone of CCM and CMAC, which kerb_wire adds.
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update


def ccm_opener(key: bytes, tag_bytes: int) -> Decrypt:
    """Return what kerb_wire.ccm.opener returns, ten times as fast: one call instead of blocks.

    shared/tests/test_oracle.py holds the two against each other.
    """
    cipher = AESCCM(key, tag_length=tag_bytes).decrypt

    def decrypt(nonce: bytes, ciphertext: bytes, tag: bytes, aad: bytes = b"") -> bytes:
        if len(nonce) != NONCE_BYTES:
            raise LocalFault("nonce", len(nonce), f"{NONCE_BYTES} bytes")
        if len(tag) != tag_bytes:
            raise RemoteFault(TRUNCATED, f"a MIC of {len(tag)}, not {tag_bytes} bytes")
        try:
            return cipher(nonce, ciphertext + tag, aad)
        except InvalidTag:
            raise RemoteFault(MIC, "the message integrity code does not match") from None

    return decrypt
