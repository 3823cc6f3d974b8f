"""BTHome v2 adverts: objects, encryption, and the service data around them.

Rule: any BTHome receiver that holds the bind key understands what is encoded here; ids ascend.

Source: the BTHome v2 format and encryption pages of the BTHome project (UUID 0xFCD2; AES-CCM
with a 4-byte MIC; nonce = advertised address, UUID, device information byte, counter).
"""

import struct

from kerb_wire.ccm import encrypt, opener
from kerb_wire.errors import KIND, ORDER, RANGE, SIZE, TRUNCATED, LocalFault, RemoteFault
from kerb_wire.layout import is_whole
from kerb_wire.limits import ADVERT_MAX_BYTES, ADVERT_OBJECTS_MAX_BYTES, SEQ_MAX

UUID16 = 0xFCD2
DEVICE_INFO_ENCRYPTED = 0x41  # version 2 in bits 5 to 7, bit 0: encrypted
DEVICE_INFO_TRIGGERED = 0x04  # bit 2: sends when something happens, not at fixed intervals
MIC_BYTES = 4
COUNTER_BYTES = 4

# id: (name, bytes, signed, factor); a value is the integer on air times the factor.
OBJECTS = {
    0x00: ("packet_id", 1, False, 1),
    0x01: ("battery_pct", 1, False, 1),
    0x02: ("temperature_c", 2, True, 0.01),
    0x03: ("humidity_pct", 2, False, 0.01),
    0x0C: ("voltage_v", 2, False, 0.001),
    0x12: ("co2_ppm", 2, False, 1),
    0x2E: ("humidity_whole_pct", 1, False, 1),
    0x3D: ("count", 2, False, 1),
    0x40: ("distance_mm", 2, False, 1),
    0x45: ("temperature_dc", 2, True, 1),  # BTHome factor 0.1 C; kept whole, in tenths
    0x57: ("temperature_whole_c", 1, True, 1),
}
BATTERY = 0x01
DISTANCE = 0x40
TEMPERATURE = 0x45
TEXT = 0x53
RAW = 0x54


def encode_objects(objects) -> bytes:
    """Return (id, integer or bytes) pairs as BTHome objects; ids must ascend."""
    out = b""
    before = -1
    for number, value in objects:
        if not is_whole(number, max(0, before), 0xFF):
            raise LocalFault("objects", number, "ids (0 to 255) in ascending order")
        before = number
        out += _encode_object(number, value)
    if len(out) > ADVERT_OBJECTS_MAX_BYTES:
        raise LocalFault("objects", len(out), f"at most {ADVERT_OBJECTS_MAX_BYTES} bytes")
    return out


def _encode_object(number: int, value) -> bytes:
    if number in (RAW, TEXT):
        if not isinstance(value, (bytes, bytearray)) or len(value) > 0xFF:
            raise LocalFault("raw", value, "at most 255 bytes")
        return bytes([number, len(value)]) + bytes(value)
    if number not in OBJECTS:
        raise LocalFault("object id", number, "an id of OBJECTS, or RAW")
    name, size, signed, _ = OBJECTS[number]
    low = -(1 << (8 * size - 1)) if signed else 0
    high = (1 << (8 * size - 1)) - 1 if signed else (1 << (8 * size)) - 1
    if not is_whole(value, low, high):
        raise LocalFault(name, value, f"{low} to {high}")
    return bytes([number]) + (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")


def decode_objects(data: bytes):
    """Return [(id, integer or bytes)] of a plaintext; RemoteFault for what is not BTHome."""
    if len(data) > ADVERT_MAX_BYTES:
        raise RemoteFault(SIZE, f"{len(data)} bytes of BTHome objects")
    objects = []
    at = 0
    while at < len(data):
        number = data[at]
        at += 1
        if number in (RAW, TEXT):
            if at >= len(data):
                raise RemoteFault(TRUNCATED, "a raw object without its length")
            size = data[at]
            at += 1
        elif number in OBJECTS:
            size = OBJECTS[number][1]
        else:
            raise RemoteFault(KIND, f"BTHome object 0x{number:02x}")
        if at + size > len(data):
            raise RemoteFault(TRUNCATED, f"BTHome object 0x{number:02x} is cut short")
        chunk = data[at : at + size]
        at += size
        objects.append((number, bytes(chunk) if number in (RAW, TEXT) else _number(number, chunk)))
    for index in range(1, len(objects)):
        if objects[index][0] < objects[index - 1][0]:
            raise RemoteFault(ORDER, "BTHome object ids do not ascend")
    return objects


def _number(number: int, chunk: bytes) -> int:
    value = int.from_bytes(chunk, "little")
    if OBJECTS[number][2] and value >> (8 * len(chunk) - 1):
        value -= 1 << (8 * len(chunk))
    return value


def _nonce(address: bytes, device_info: int, counter: bytes) -> bytes:
    if len(address) != 6:
        raise LocalFault("address", len(address), "6 bytes, most significant first")
    return bytes(address) + struct.pack("<HB", UUID16, device_info) + counter


def seal(ecb, address: bytes, counter: int, objects: bytes, triggered: bool = False) -> bytes:
    """Return the service data (without its UUID) of an encrypted advert.

    address: the *advertised* address, 6 bytes as printed; counter: u32, never used twice under
    one key; objects: bytes of encode_objects.
    """
    if not is_whole(counter, 0, SEQ_MAX):
        raise LocalFault("counter", counter, "a u32")
    info = DEVICE_INFO_ENCRYPTED | (DEVICE_INFO_TRIGGERED if triggered else 0)
    packed = struct.pack("<I", counter)
    text, mic = encrypt(ecb, _nonce(address, info, packed), objects, tag_bytes=MIC_BYTES)
    return bytes([info]) + text + packed + mic


def counter_of(service_data: bytes) -> int:
    """Return the counter that encrypted service data claims, before anything is verified."""
    if len(service_data) < 1 + COUNTER_BYTES + MIC_BYTES:
        raise RemoteFault(TRUNCATED, f"encrypted service data of {len(service_data)} bytes")
    if len(service_data) > 1 + 24 + COUNTER_BYTES + MIC_BYTES:
        raise RemoteFault(SIZE, f"encrypted service data of {len(service_data)} bytes")
    info = service_data[0]
    if info & ~DEVICE_INFO_TRIGGERED != DEVICE_INFO_ENCRYPTED:
        raise RemoteFault(RANGE, f"device information 0x{info:02x} is not encrypted BTHome v2")
    return struct.unpack("<I", service_data[-8:-4])[0]


def unseal(ecb, address: bytes, service_data: bytes) -> tuple[int, bytes]:
    """Return (counter, plaintext objects as bytes); RemoteFault(MIC) if forged or altered."""
    return unseal_with(opener(ecb, MIC_BYTES), address, service_data)


def unseal_with(decrypt, address: bytes, service_data: bytes) -> tuple[int, bytes]:
    """As unseal(); decrypt: ccm.opener(ecb, MIC_BYTES), or what does the same."""
    counter = counter_of(service_data)
    nonce = _nonce(address, service_data[0], service_data[-8:-4])
    return counter, decrypt(nonce, service_data[1:-8], service_data[-4:])


def advertising_data(service_data: bytes) -> bytes:
    """Return the legacy advertising data (at most 31 bytes): flags, then the service data."""
    data = b"\x02\x01\x06" + bytes([len(service_data) + 3, 0x16])
    data += struct.pack("<H", UUID16) + service_data
    if len(data) > 31:
        raise LocalFault("advertising data", len(data), "at most 31 bytes")
    return data
