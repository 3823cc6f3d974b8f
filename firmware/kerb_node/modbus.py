"""A Modbus RTU server without a bus: an ADU in, an ADU or nothing out.

Rule: length and CRC first; a frame for another unit is not looked into; a wrong request gets the
exception that the specification names, a damaged one no answer at all.

Sources: Modbus Application Protocol V1.1b3 (functions, exceptions), Modbus over Serial Line V1.02
(RTU frames, CRC).
"""

import struct

from kerb_wire.crc import crc16_modbus
from kerb_wire.errors import RemoteFault
from kerb_wire.limits import FILE_READ_MAX_RECORDS
from kerb_wire.records import RECORD_BYTES
from kerb_wire.registers import (
    RECORD_WORDS,
    file_offset,
)

_ILLEGAL_FUNCTION = 1
_ILLEGAL_ADDRESS = 2
_ILLEGAL_VALUE = 3
_DEVICE_FAILURE = 4

_ADU_MIN_BYTES = 4
_ADU_MAX_BYTES = 256
_READ_MAX = 125
_WRITE_MAX = 123
_READ_WRITE_MAX = 121
_CONFORMITY_EXTENDED = 0x83  # stream and individual access, up to the extended category
# Read code: the last object number of its category (basic, regular, extended).
_CATEGORY_ENDS = {1: 0x02, 2: 0x7F, 3: 0xFF}


def request_bytes(adu):
    """Return how long a request that begins like this is as a whole; 0: not known yet or never."""
    if len(adu) < 2:
        return 0
    if adu[1] in (0x03, 0x04, 0x06):
        return 8
    if adu[1] == 0x2B:
        return 7
    at, fixed = {0x10: (6, 9), 0x14: (2, 5), 0x17: (10, 13)}.get(adu[1], (0, 0))
    return fixed + adu[at] if at and len(adu) > at else 0


def _crc_fits(adu):
    return struct.unpack("<H", adu[-2:])[0] == crc16_modbus(adu[:-2])


class ModbusException(Exception):
    """A request that is answered with an exception code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class ModbusServer:
    """One unit; `device` gives and takes what the registers mean.

    device.read_input(start, count) and read_holding(start, count) return lists of u16 or None,
    write_holding(start, values) returns False for an address that is none, records(offset,
    count) returns that many 24-byte records or None, identity() {object number: text}. An
    OSError of theirs (the flash) is answered as a failure of the device.
    """

    def __init__(self, unit, device):
        self._unit = unit
        self._device = device
        self.bad_frames = 0
        self._functions = {
            0x03: self._read_holding,
            0x04: self._read_input,
            0x06: self._write_one,
            0x10: self._write_many,
            0x14: self._read_file,
            0x17: self._read_write,
            0x2B: self._identify,
        }

    def find(self, data):
        """Return the whole, undamaged request to this unit that `data` ends with, or None.

        What comes before it is another unit's talk: on a busy bus frames follow each other more
        closely than a program sees their silence.
        """
        for start in range(len(data) - _ADU_MIN_BYTES + 1):
            if data[start] != self._unit:
                continue
            adu = bytes(data[start:])
            if len(adu) == request_bytes(adu) and _crc_fits(adu):
                return adu
        return None

    def is_begun(self, adu):
        """Tell whether `adu` may be the beginning of a request to this unit."""
        return len(adu) > 0 and adu[0] == self._unit and len(adu) < (request_bytes(adu) or 8)

    def answer(self, adu):
        """Return the answering ADU, or None when there is nothing to say."""
        if not _ADU_MIN_BYTES <= len(adu) <= _ADU_MAX_BYTES:
            self.bad_frames += 1
            return None
        if not _crc_fits(adu):
            self.bad_frames += 1
            return None
        if adu[0] != self._unit:
            return None  # another unit's, or a broadcast, which this map has no use for
        body = self._pdu(bytes(adu[1:-2]))
        reply = bytes([self._unit]) + body
        return reply + struct.pack("<H", crc16_modbus(reply))

    def _pdu(self, pdu):
        function = pdu[0]
        handler = self._functions.get(function)
        try:
            if handler is None:
                raise ModbusException(_ILLEGAL_FUNCTION)
            return bytes([function]) + handler(pdu[1:])
        except ModbusException as error:
            return bytes([function | 0x80, error.code])
        except OSError:
            return bytes([function | 0x80, _DEVICE_FAILURE])

    def _words(self, data, layout):
        if len(data) != struct.calcsize(layout):
            raise ModbusException(_ILLEGAL_VALUE)
        return struct.unpack(layout, data)

    def _read(self, read, start, count, most):
        if not 1 <= count <= most:
            raise ModbusException(_ILLEGAL_VALUE)
        values = read(start, count)
        if values is None:
            raise ModbusException(_ILLEGAL_ADDRESS)
        return bytes([2 * count]) + struct.pack(f">{count}H", *values)

    def _read_holding(self, data):
        start, count = self._words(data, ">HH")
        return self._read(self._device.read_holding, start, count, _READ_MAX)

    def _read_input(self, data):
        start, count = self._words(data, ">HH")
        return self._read(self._device.read_input, start, count, _READ_MAX)

    def _write(self, start, values):
        if not self._device.write_holding(start, values):
            raise ModbusException(_ILLEGAL_ADDRESS)

    def _write_one(self, data):
        address, value = self._words(data, ">HH")
        self._write(address, [value])
        return data

    def _values(self, data, count):
        if len(data) != 1 + 2 * count or data[0] != 2 * count:
            raise ModbusException(_ILLEGAL_VALUE)
        return list(struct.unpack(f">{count}H", data[1:]))

    def _write_many(self, data):
        start, count = self._words(data[:4], ">HH")
        if not 1 <= count <= _WRITE_MAX:
            raise ModbusException(_ILLEGAL_VALUE)
        self._write(start, self._values(data[4:], count))
        return data[:4]

    def _read_write(self, data):
        read_start, read_count, write_start, write_count = self._words(data[:8], ">HHHH")
        if not (1 <= read_count <= _READ_MAX and 1 <= write_count <= _READ_WRITE_MAX):
            raise ModbusException(_ILLEGAL_VALUE)
        values = self._values(data[8:], write_count)
        if self._device.read_holding(read_start, read_count) is None:
            raise ModbusException(_ILLEGAL_ADDRESS)
        # The write comes before the read (6.17): the answer carries the new token.
        self._write(write_start, values)
        return self._read(self._device.read_holding, read_start, read_count, _READ_MAX)

    def _read_file(self, data):
        """One sub-request, which is what this map needs; more are refused."""
        size, reference, file_number, record_number, words = self._words(data, ">BBHHH")
        count = words // RECORD_WORDS
        if size != 7 or words % RECORD_WORDS or not 1 <= count <= FILE_READ_MAX_RECORDS:
            raise ModbusException(_ILLEGAL_VALUE)
        if reference != 6:
            raise ModbusException(_ILLEGAL_ADDRESS)
        try:
            offset = file_offset(file_number, record_number)
        except RemoteFault:
            raise ModbusException(_ILLEGAL_ADDRESS)
        found = self._device.records(offset, count)
        if found is None:
            raise ModbusException(_ILLEGAL_ADDRESS)
        content = b"".join(found)
        if len(content) != count * RECORD_BYTES:
            raise ModbusException(_DEVICE_FAILURE)
        return bytes([len(content) + 2, len(content) + 1, 6]) + content

    def _identify(self, data):
        """Device identification, all objects of a category in one answer (6.21)."""
        mei, read_code, first = self._words(data, ">BBB")
        if mei != 0x0E:
            raise ModbusException(_ILLEGAL_FUNCTION)
        texts = self._device.identity()
        if read_code == 4:
            if first not in texts:
                raise ModbusException(_ILLEGAL_ADDRESS)
            wanted = [first]
        elif read_code in _CATEGORY_ENDS:
            category = [n for n in sorted(texts) if n <= _CATEGORY_ENDS[read_code]]
            # A stream that starts at an unknown object starts at the beginning (6.21).
            wanted = [n for n in category if n >= first] if first in category else category
        else:
            raise ModbusException(_ILLEGAL_VALUE)
        answer = bytes([0x0E, read_code, _CONFORMITY_EXTENDED, 0, 0, len(wanted)])
        for number in wanted:
            text = texts[number].encode()
            answer += bytes([number, len(text)]) + text
        return answer
