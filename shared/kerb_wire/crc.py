"""Checksums: CRC-32 for frames and flash, CRC-16/MODBUS for the RS-485 bus.

Rule: they find damage, not forgery; that is the MIC's work (ccm.py).
"""

from binascii import crc32 as _crc32


def crc32(data: bytes) -> int:
    """Return the CRC-32 (ISO-HDLC, as in zlib) of `data` as a u32."""
    return _crc32(data) & 0xFFFFFFFF


def _modbus_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_TABLE = _modbus_table()


def crc16_modbus(data: bytes) -> int:
    """Return the CRC-16 of `data` (u16); sent low byte first (Modbus over Serial Line 2.5.1.2)."""
    value = 0xFFFF
    for octet in data:
        value = (value >> 8) ^ _TABLE[(value ^ octet) & 0xFF]
    return value
