"""What node and gateway say to each other in a session, each message as a table of fields.

Rule: a message is one kind byte and its layout, no more and no less; ranges are inclusive at
both ends. The frame (frame.py) gives it bounds and a CRC, the channel (session.py) a MIC.
"""

from kerb_wire.errors import KIND, RANGE, TRUNCATED, LocalFault, RemoteFault
from kerb_wire.layout import Field, Layout
from kerb_wire.limits import ANSWER_MAX_RECORDS, BACKFILL_MAX_RECORDS
from kerb_wire.records import RECORD_BYTES
from kerb_wire.words import LOSSES, OUTCOMES, REASONS, ROLES

TAG_BYTES = 8

HELLO_GATEWAY = 1
HELLO_NODE = 2
PROOF = 3
READING = 4
EVENT = 5
BACKFILL_REQUEST = 6
BACKFILL_ANSWER = 7
LOST = 8
BACKFILL_END = 9
ACK = 10
COMMAND = 11
RESULT = 12
REFUSAL = 13
BYE = 14

# REFUSAL.code
REFUSALS = ("unprovisioned", "bad_proof", "bad_message", "other_epoch", "busy")


def _epoch() -> Field:
    return Field("epoch", "u32")


LAYOUTS = {
    HELLO_GATEWAY: Layout(
        "HelloGateway",
        (
            Field("version", "u8", 1, 1),
            Field("nonce", "bytes16"),
            Field("gateway_boot", "u32"),  # random at each start of the gateway's machine
            Field("boottime_s", "u32"),  # CLOCK_BOOTTIME of the gateway
        ),
    ),
    HELLO_NODE: Layout(
        "HelloNode",
        (
            Field("version", "u8", 1, 1),
            Field("role", "u8", 0, len(ROLES) - 1),
            Field("node_id", "bytes6"),
            _epoch(),
            Field("nonce", "bytes16"),
            Field("boot_no", "u16"),  # the node's clock: this boot ...
            Field("uptime_s", "u32"),  # ... and the seconds since, deep sleep included
            Field("first_seq", "u32"),  # oldest record still on flash; first > last: none
            Field("last_seq", "u32"),  # newest number used or skipped in this epoch
            Field("acked_seq", "u32"),  # the gateway's last ACK that the node knows of
            Field("tag", f"bytes{TAG_BYTES}"),
        ),
    ),
    PROOF: Layout("Proof", (Field("tag", f"bytes{TAG_BYTES}"),)),
    READING: Layout("Reading", (_epoch(), Field("record", f"bytes{RECORD_BYTES}"))),
    EVENT: Layout("Event", (_epoch(), Field("record", f"bytes{RECORD_BYTES}"))),
    BACKFILL_REQUEST: Layout(
        "BackfillRequest", (_epoch(), Field("first_seq", "u32"), Field("last_seq", "u32"))
    ),
    BACKFILL_ANSWER: Layout(
        "BackfillAnswer",
        (_epoch(), Field("records", "rest", RECORD_BYTES, ANSWER_MAX_RECORDS * RECORD_BYTES)),
    ),
    LOST: Layout(
        "Lost",
        (
            _epoch(),
            Field("first_seq", "u32"),
            Field("last_seq", "u32"),
            Field("reason", "u8", 0, len(LOSSES) - 1),
        ),
    ),
    BACKFILL_END: Layout(
        "BackfillEnd", (_epoch(), Field("first_seq", "u32"), Field("last_seq", "u32"))
    ),
    ACK: Layout("Ack", (_epoch(), Field("seq", "u32"))),
    COMMAND: Layout(
        "Command",
        (
            Field("command_no", "u32", 1),
            Field("level_pct", "u8", 0, 100),
            Field("fade_ms", "u16"),
            Field("hold_s", "u32", 1, 7 * 86400),  # an override always has an expiry
            Field("life_s", "u16"),  # what is left of the command's life; 0: expired
        ),
    ),
    RESULT: Layout(
        "Result",
        (
            Field("command_no", "u32", 1),
            Field("outcome", "u8", 1, len(OUTCOMES) - 1),
            Field("level_pct", "u8", 0, 100),
            Field("reason", "u8", 0, len(REASONS) - 1),
        ),
    ),
    REFUSAL: Layout("Refusal", (Field("code", "u8", 0, len(REFUSALS) - 1),)),
    BYE: Layout("Bye", ()),
}

_RANGED = (BACKFILL_REQUEST, LOST, BACKFILL_END)


def _range_fault(kind: int, row) -> str | None:
    """Return what is wrong with the parts of a message as a whole, or None."""
    if kind in _RANGED and row.last_seq < row.first_seq:
        return f"last_seq = {row.last_seq}: not below first_seq = {row.first_seq}"
    if kind == BACKFILL_REQUEST and row.last_seq - row.first_seq >= BACKFILL_MAX_RECORDS:
        return f"{row.last_seq - row.first_seq + 1} records: at most {BACKFILL_MAX_RECORDS}"
    if kind == BACKFILL_ANSWER and len(row.records) % RECORD_BYTES:
        return f"{len(row.records)} bytes are no whole number of records"
    return None


def encode(kind: int, *values) -> bytes:
    """Return message `kind` with `values` in its layout's order; LocalFault names the field."""
    layout = LAYOUTS.get(kind)
    if layout is None:
        raise LocalFault("kind", kind, "a message kind of this module")
    data = layout.pack(*values)
    fault = _range_fault(kind, layout.Row(*values))
    if fault:
        raise LocalFault(layout.name, kind, fault)
    return bytes([kind]) + data


def decode(data: bytes):
    """Return (kind, row); RemoteFault for anything but exactly one message."""
    if not data:
        raise RemoteFault(TRUNCATED, "an empty message")
    layout = LAYOUTS.get(data[0])
    if layout is None:
        raise RemoteFault(KIND, f"message kind {data[0]}")
    row = layout.unpack(data[1:])
    fault = _range_fault(data[0], row)
    if fault:
        raise RemoteFault(RANGE, f"{layout.name}: {fault}")
    return data[0], row


def split_records(row) -> list[bytes]:
    """Return the records of a BackfillAnswer as a list of 24-byte strings."""
    records = row.records
    return [records[at : at + RECORD_BYTES] for at in range(0, len(records), RECORD_BYTES)]
