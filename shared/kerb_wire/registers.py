"""The Modbus register map of a lamp node as data: node, gateway and docs read this one table.

Rule: multi-register numbers are big-endian words (Modbus Application Protocol V1.1b3, 4.2); a
value is only ever read and written through this table.

The status block can be read as input registers (function 0x04, from 0) or, mirrored, as holding
registers from STATUS_MIRROR on. The mirror stands right behind ECHO, and ECHO right behind the
command block, so one Read/Write Multiple Registers (0x17) writes a command and a token and
reads token and state back: a late answer to an older request carries an older token.
"""

from kerb_wire.errors import RANGE, SIZE, LocalFault, RemoteFault
from kerb_wire.layout import is_whole
from kerb_wire.limits import FILE_READ_MAX_RECORDS
from kerb_wire.records import RECORD_BYTES

MAP_VERSION = 1

# (name, words): the status block, in order; addresses follow from it.
STATUS = (
    ("map_version", 1),
    ("node_id", 3),
    ("epoch", 2),
    ("boot_no", 1),
    ("uptime_s", 2),
    ("first_seq", 2),
    ("last_seq", 2),
    ("acked_seq", 2),
    ("level_pct", 1),
    ("target_level_pct", 1),
    ("reason", 1),
    ("faults", 1),
    ("burn_min", 2),
    ("command_no", 2),
    ("command_outcome", 1),
    ("override_left_s", 2),
    ("reset_cause", 1),
    ("bad_frames", 2),
    ("switch_count", 2),
)

# Holding registers that a client writes, ending with the echo token.
CONTROL = (
    ("ack_epoch", 2),
    ("ack_seq", 2),
    ("new_command_no", 2),
    ("new_level_pct", 1),
    ("new_fade_ms", 1),
    ("new_hold_s", 2),
    ("new_life_s", 1),
    ("echo", 1),
)

CONTROL_START = 100  # holding address of the first CONTROL register


def _words(table) -> int:
    return sum(entry[1] for entry in table)


STATUS_WORDS = _words(STATUS)
CONTROL_WORDS = _words(CONTROL)
ECHO_ADDRESS = CONTROL_START + CONTROL_WORDS - 1
STATUS_MIRROR = ECHO_ADDRESS + 1


def addresses(table, start: int) -> dict[str, tuple[int, int]]:
    """Return {name: (address, words)} for a table laid from `start` on."""
    result = {}
    for name, words in table:
        result[name] = (start, words)
        start += words
    return result


def pack(table, values: dict[str, int]) -> list[int]:
    """Return the registers (list of u16) of `values`, a dict name -> int for the whole table."""
    registers = []
    for name, words in table:
        if name not in values:
            raise LocalFault(name, None, "a value for every name of the table")
        value = values[name]
        if not is_whole(value, 0, (1 << (16 * words)) - 1):
            raise LocalFault(name, value, f"0 to {(1 << (16 * words)) - 1}")
        for index in range(words - 1, -1, -1):
            registers.append((value >> (16 * index)) & 0xFFFF)
    return registers


def unpack(table, registers: list[int]) -> dict[str, int]:
    """Return {name: int} of a whole table's registers; RemoteFault if their number differs."""
    if len(registers) != _words(table):
        raise RemoteFault(SIZE, f"{len(registers)} registers, not {_words(table)}")
    values = {}
    at = 0
    for name, words in table:
        value = 0
        for register in registers[at : at + words]:
            if not is_whole(register, 0, 0xFFFF):
                raise RemoteFault(RANGE, f"{name}: a register of {register!r}")
            value = value << 16 | register
        values[name] = value
        at += words
    return values


# The log by Read File Record (0x14): file and record number follow from seq.
RECORD_WORDS = RECORD_BYTES // 2
_RECORDS_A_FILE = 256
_FILES = 0xFFFF


def file_position(seq: int) -> tuple[int, int]:
    """Return (file_number, record_number) where the record `seq` starts."""
    return 1 + (seq // _RECORDS_A_FILE) % _FILES, (seq % _RECORDS_A_FILE) * RECORD_WORDS


def file_span(first_seq: int, last_seq: int) -> int:
    """Return how many records one file read from first_seq may ask for (it stays in its file)."""
    left = _RECORDS_A_FILE - first_seq % _RECORDS_A_FILE
    return min(last_seq - first_seq + 1, left, FILE_READ_MAX_RECORDS)


def file_offset(file_number: int, record_number: int) -> int:
    """Return seq modulo the log's span for a file position; RemoteFault if it starts no record.

    The span is 256 * 65535 numbers; the node knows its newest seq and resolves the rest.
    """
    if not 1 <= file_number <= _FILES:
        raise RemoteFault(RANGE, f"file number {file_number}")
    if record_number % RECORD_WORDS or record_number >= _RECORDS_A_FILE * RECORD_WORDS:
        raise RemoteFault(RANGE, f"record number {record_number}")
    return (file_number - 1) * _RECORDS_A_FILE + record_number // RECORD_WORDS


FILE_SPAN = _RECORDS_A_FILE * _FILES

# Device identification objects (function 0x2B, MEI type 0x0E), basic category and one of ours.
DEVICE_VENDOR = "Kerbstone"
DEVICE_PRODUCT = "KS-LAMP"
DEVICE_OBJECT_NODE_ID = 0x80
