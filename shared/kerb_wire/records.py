"""A record: 24 bytes, the same on the node's flash, over GATT and in a Modbus file record.

Rule: a record's identity is (node_id, epoch, seq) and its content never changes once stored;
times are the node's own (boot_no, uptime_s), never wall time.
"""

import struct

from kerb_wire.errors import KIND, TRAILING, TRUNCATED, LocalFault, RemoteFault
from kerb_wire.layout import Field, Layout, is_whole
from kerb_wire.limits import SEQ_MAX
from kerb_wire.words import EVENTS, FAULTS_MASK, FLAGS_MASK, LOSSES, OUTCOMES, QUALITIES, REASONS

RECORD_BYTES = 24
RECORD_VERSION = 1

FILL = 1  # one burst of a bin or bay node
LAMP = 2  # a lamp's state: periodic, or because something changed
LOST = 3  # stands in an answer for seq..last_seq, which the node cannot give any more

NO_DISTANCE = 0xFFFF
NO_TEMPERATURE = -32768
NO_BATTERY = 255
SIGMA_MAX_MM = 255  # "255 or more"

_HEAD = (
    Field("version", "u8", RECORD_VERSION, RECORD_VERSION),
    Field("kind", "u8"),
    Field("boot_no", "u16"),
    Field("seq", "u32"),
    Field("uptime_s", "u32"),
)

FILL_LAYOUT = Layout(
    "FillRecord",
    _HEAD
    + (
        Field("distance_mm", "u16", 0, 20000, NO_DISTANCE),
        Field("sigma_mm", "u8"),
        Field("quality", "u8", 0, len(QUALITIES) - 1),
        Field("temperature_dc", "i16", -600, 1250, NO_TEMPERATURE),  # tenths of a degree Celsius
        Field("battery_pct", "u8", 0, 100, NO_BATTERY),
        Field("event", "u8", 0, len(EVENTS) - 1),
        Field("pings", "u8"),
        Field("echoes", "u8"),
        Field("flags", "u8", 0, FLAGS_MASK),
        Field("backlog", "u8"),  # records not yet acknowledged when this one was made, capped
    ),
)

LAMP_LAYOUT = Layout(
    "LampRecord",
    _HEAD
    + (
        Field("level_pct", "u8", 0, 100),
        Field("reason", "u8", 0, len(REASONS) - 1),
        Field("faults", "u8", 0, FAULTS_MASK),
        Field("event_outcome", "u8"),  # event in the low nibble, a command's outcome in the high
        Field("burn_min", "u32"),
        Field("command_no", "u32"),  # 0: no command behind this record
    ),
)

LOST_LAYOUT = Layout(
    "LostRecord",
    _HEAD
    + (
        Field("reason", "u8", 0, len(LOSSES) - 1),
        Field("reserved", "bytes3"),
        Field("last_seq", "u32"),
        Field("reserved2", "u32", 0, 0),
    ),
)

_LAYOUTS = {FILL: FILL_LAYOUT, LAMP: LAMP_LAYOUT, LOST: LOST_LAYOUT}


def pack_fill(boot_no: int, seq: int, uptime_s: int, *body: int) -> bytes:
    """Return a FILL record; `body`: the ten fields of FILL_LAYOUT after uptime_s, in order."""
    return FILL_LAYOUT.pack(RECORD_VERSION, FILL, boot_no, seq, uptime_s, *body)


def pack_lamp(
    boot_no: int,
    seq: int,
    uptime_s: int,
    level_pct: int,
    reason: int,
    faults: int,
    event: int,
    outcome: int,
    burn_min: int,
    command_no: int,
) -> bytes:
    """Return a LAMP record; event and outcome are numbers of words.EVENTS and words.OUTCOMES."""
    if not is_whole(event, 0, len(EVENTS) - 1):
        raise LocalFault("event", event, f"0 to {len(EVENTS) - 1}")
    if not is_whole(outcome, 0, len(OUTCOMES) - 1):
        raise LocalFault("outcome", outcome, f"0 to {len(OUTCOMES) - 1}")
    return LAMP_LAYOUT.pack(
        RECORD_VERSION,
        LAMP,
        boot_no,
        seq,
        uptime_s,
        level_pct,
        reason,
        faults,
        event | outcome << 4,
        burn_min,
        command_no,
    )


def pack_lost(seq: int, last_seq: int, reason: int) -> bytes:
    """Return a LOST record for seq..last_seq (both included); reason: a number of words.LOSSES."""
    if not is_whole(seq, 0, SEQ_MAX):
        raise LocalFault("seq", seq, f"0 to {SEQ_MAX}")
    if not is_whole(last_seq, seq, SEQ_MAX):
        raise LocalFault("last_seq", last_seq, f"{seq} to {SEQ_MAX}")
    return LOST_LAYOUT.pack(RECORD_VERSION, LOST, 0, seq, 0, reason, bytes(3), last_seq, 0)


def unpack(data: bytes):
    """Return the FillRecord, LampRecord or LostRecord row of 24 bytes; RemoteFault else."""
    if len(data) < RECORD_BYTES:
        raise RemoteFault(TRUNCATED, f"record: {len(data)} of {RECORD_BYTES} bytes")
    if len(data) > RECORD_BYTES:
        raise RemoteFault(TRAILING, f"record: {len(data)}, not {RECORD_BYTES} bytes")
    layout = _LAYOUTS.get(data[1])
    if layout is None:
        raise RemoteFault(KIND, f"record kind {data[1]}")
    row = layout.unpack(data)
    if data[1] == LAMP:
        _check_lamp(row)
    if data[1] == LOST:
        _check_lost(row)
    return row


def _check_lamp(row):
    if lamp_event(row) >= len(EVENTS) or lamp_outcome(row) >= len(OUTCOMES):
        raise RemoteFault(KIND, f"LampRecord.event_outcome = {row.event_outcome}")


def _check_lost(row):
    if row.last_seq < row.seq or any(row.reserved) or row.boot_no or row.uptime_s:
        raise RemoteFault(KIND, f"LostRecord {row.seq} to {row.last_seq}")


def lamp_event(row) -> int:
    """Return the event number (words.EVENTS) of a LampRecord."""
    return row.event_outcome & 0x0F


def lamp_outcome(row) -> int:
    """Return the outcome number (words.OUTCOMES) of a LampRecord; 0 when no command ended."""
    return row.event_outcome >> 4


def seq_of(data: bytes) -> int:
    """Return the sequence number of a packed record without unpacking the rest."""
    return struct.unpack("<I", data[4:8])[0]


def command_no_of(data: bytes) -> int:
    """Return the command number of a packed LAMP record (0: none) without unpacking the rest."""
    return struct.unpack("<I", data[20:24])[0]


def event_of(data: bytes) -> int:
    """Return the event number of a packed FILL or LAMP record (0: none) without unpacking it."""
    if data[1] == FILL:
        return data[19]
    return data[15] & 0x0F if data[1] == LAMP else 0
