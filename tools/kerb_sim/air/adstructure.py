"""Advertising data as AD structures: length, type, content; and what BlueZ makes of them.

Rule: damaged data gives what was whole before the damage, as a controller's host does.

Source: Bluetooth Core Specification Supplement, Part A (AD types and their layouts).
"""

from __future__ import annotations

from dataclasses import dataclass

_BASE = "-0000-1000-8000-00805f9b34fb"
_UUIDS_16 = (0x02, 0x03)
_UUIDS_128 = (0x06, 0x07)
_NAMES = (0x08, 0x09)
_TX_POWER = 0x0A
_SERVICE_DATA_16 = 0x16
_SERVICE_DATA_128 = 0x21
_MANUFACTURER = 0xFF

Structures = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Pattern:
    """What an advertisement monitor looks for: `content` at `start` of a structure of `kind`."""

    start: int
    kind: int
    content: bytes

    def matches(self, structures: Structures) -> bool:
        """Tell whether one of the structures carries the content."""
        end = self.start + len(self.content)
        return any(
            kind == self.kind and content[self.start : end] == self.content
            for kind, content in structures
        )


def split(data: bytes) -> Structures:
    """Return [(type, content)] of legacy advertising data."""
    found = []
    at = 0
    while at + 1 < len(data) and data[at]:
        end = at + 1 + data[at]
        if end > len(data):
            break
        found.append((data[at + 1], data[at + 2 : end]))
        at = end
    return found


def service_data(structures: Structures) -> dict[str, bytes]:
    """Return {128-bit uuid text: service data}."""
    found = {}
    for kind, content in structures:
        if kind == _SERVICE_DATA_16 and len(content) >= 2:
            found[_uuid(content[:2])] = content[2:]
        elif kind == _SERVICE_DATA_128 and len(content) >= 16:
            found[_uuid(content[:16])] = content[16:]
    return found


def manufacturer_data(structures: Structures) -> dict[int, bytes]:
    """Return {company identifier: data}."""
    return {
        int.from_bytes(content[:2], "little"): content[2:]
        for kind, content in structures
        if kind == _MANUFACTURER and len(content) >= 2
    }


def name(structures: Structures) -> str | None:
    """Return the advertised name, whole or shortened."""
    for kind, content in structures:
        if kind in _NAMES:
            return content.decode(errors="replace")
    return None


def tx_power(structures: Structures) -> int | None:
    """Return the advertised transmit power in dBm."""
    for kind, content in structures:
        if kind == _TX_POWER and len(content) == 1:
            return int.from_bytes(content, "little", signed=True)
    return None


def service_uuids(structures: Structures) -> list[str]:
    """Return the advertised service UUIDs as 128-bit texts."""
    found = []
    for kind, content in structures:
        size = 2 if kind in _UUIDS_16 else 16 if kind in _UUIDS_128 else 0
        if size:
            whole = len(content) - len(content) % size
            found += [_uuid(content[at : at + size]) for at in range(0, whole, size)]
    return found


def _uuid(octets: bytes) -> str:
    """Return little-endian octets (2 or 16) as a 128-bit UUID text."""
    text = octets[::-1].hex()
    if len(octets) == 2:
        return f"0000{text}{_BASE}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
