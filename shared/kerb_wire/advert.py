"""A bin's reading inside a BTHome advert: what fits into 15 bytes, and how it reads back.

Rule: the same record always gives the same bytes, so a repeated advert never encrypts two
plaintexts under one counter. The counter is the record's seq.

RAW (5 bytes): quality in the low and event in the high nibble, flags, sigma_mm, the epoch's low
byte, backlog.
"""

import struct

from kerb_wire import bthome
from kerb_wire.errors import KIND, RANGE, SIZE, RemoteFault
from kerb_wire.layout import Field, Layout
from kerb_wire.records import NO_BATTERY, NO_DISTANCE, NO_TEMPERATURE
from kerb_wire.words import EVENTS, FLAGS_MASK, QUALITIES

RAW_LAYOUT = Layout(
    "AdvertRaw",
    (
        Field("quality_event", "u8"),
        Field("flags", "u8", 0, FLAGS_MASK),
        Field("sigma_mm", "u8"),
        Field("epoch_tag", "u8"),
        Field("backlog", "u8"),
    ),
)

READING_LAYOUT = Layout(
    "AdvertReading",
    (
        Field("distance_mm", "u16", 0, 20000, NO_DISTANCE),
        Field("sigma_mm", "u8"),
        Field("quality", "u8", 0, len(QUALITIES) - 1),
        Field("temperature_dc", "i16", -600, 1250, NO_TEMPERATURE),
        Field("battery_pct", "u8", 0, 100, NO_BATTERY),
        Field("event", "u8", 0, len(EVENTS) - 1),
        Field("flags", "u8", 0, FLAGS_MASK),
        Field("backlog", "u8"),
        Field("epoch_tag", "u8"),
    ),
)

_DISTANCE = bytes((bthome.DISTANCE,))
_TEMPERATURE = bytes((bthome.TEMPERATURE,))
_RAW = bytes((bthome.RAW, RAW_LAYOUT.size_bytes))
_NO_DISTANCE = struct.pack("<H", NO_DISTANCE)
_NO_TEMPERATURE = struct.pack("<h", NO_TEMPERATURE)


def objects_of(record, epoch: int) -> bytes:
    """Return the BTHome objects (bytes, at most 15) of a FillRecord row."""
    objects = []
    if record.battery_pct != NO_BATTERY:
        objects.append((bthome.BATTERY, record.battery_pct))
    if record.distance_mm != NO_DISTANCE:
        objects.append((bthome.DISTANCE, record.distance_mm))
    if record.temperature_dc != NO_TEMPERATURE:
        objects.append((bthome.TEMPERATURE, record.temperature_dc))
    raw = RAW_LAYOUT.pack(
        record.quality | record.event << 4,
        record.flags,
        record.sigma_mm,
        epoch & 0xFF,
        record.backlog,
    )
    objects.append((bthome.RAW, raw))
    return bthome.encode_objects(objects)


def objects_of_packed(packed: bytes, epoch: int) -> bytes:
    """Return objects_of(records.unpack(packed), epoch) of a FILL record that was taken as whole.

    Both are little-endian, so the bytes need only be put in their places: a tenth of the time.
    """
    objects = b"" if packed[18] == NO_BATTERY else bytes((bthome.BATTERY, packed[18]))
    if packed[12:14] != _NO_DISTANCE:
        objects += _DISTANCE + packed[12:14]
    if packed[16:18] != _NO_TEMPERATURE:
        objects += _TEMPERATURE + packed[16:18]
    raw = (packed[15] | packed[19] << 4, packed[22], packed[14], epoch & 0xFF, packed[23])
    return objects + _RAW + bytes(raw)


def reading_of(plaintext: bytes):
    """Return the AdvertReading row of decrypted objects; RemoteFault if they are not ours."""
    values = {bthome.BATTERY: NO_BATTERY, bthome.DISTANCE: NO_DISTANCE}
    values[bthome.TEMPERATURE] = NO_TEMPERATURE
    raw = None
    for number, value in bthome.decode_objects(plaintext):
        if number == bthome.RAW:
            raw = value
        elif number in values:
            values[number] = value
        else:
            raise RemoteFault(KIND, f"object 0x{number:02x} in a bin's advert")
    if raw is None:
        raise RemoteFault(SIZE, "a bin's advert without its raw object")
    row = RAW_LAYOUT.unpack(raw)
    packed = (
        values[bthome.DISTANCE],
        row.sigma_mm,
        row.quality_event & 0x0F,
        values[bthome.TEMPERATURE],
        values[bthome.BATTERY],
        row.quality_event >> 4,
        row.flags,
        row.backlog,
        row.epoch_tag,
    )
    for field, value in zip(READING_LAYOUT.fields, packed):
        if not field.fits(value):
            raise RemoteFault(RANGE, f"AdvertReading.{field.name} = {value!r}: {field.allowed()}")
    return READING_LAYOUT.Row(*packed)
