"""Advertising data as AD structures: length, type, content.

Rule: damaged data gives what was whole before the damage, as a controller's host does.

Source: Bluetooth Core Specification Supplement, Part A; type 0x16: service data, 16-bit UUID.
"""

from __future__ import annotations

_SERVICE_DATA_16 = 0x16


def parse(data: bytes) -> dict[str, bytes]:
    """Return {128-bit uuid text: service data} of legacy advertising data."""
    found = {}
    at = 0
    while at + 1 < len(data) and data[at]:
        end = at + 1 + data[at]
        if end > len(data):
            break
        if data[at + 1] == _SERVICE_DATA_16 and end - at >= 4:
            number = int.from_bytes(data[at + 2 : at + 4], "little")
            found[f"0000{number:04x}-0000-1000-8000-00805f9b34fb"] = data[at + 4 : end]
        at = end
    return found
