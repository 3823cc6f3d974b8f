"""AES for the host: the ECB primitive that kerb_wire asks for.

Rule: keys are held in memory only, by their owners; nothing here logs.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Ecb = Callable[[bytes], bytes]


def new_ecb(key: bytes) -> Ecb:
    """Return the function that encrypts one 16-byte block under `key`."""
    # ECB of single blocks is the building stone of CCM and CMAC, which kerb_wire adds.
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
