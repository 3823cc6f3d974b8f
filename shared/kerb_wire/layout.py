"""A message's fields as data: one table packs, unpacks, checks ranges and documents itself.

Rule: struct wraps silently and accepts extra bytes, so every value is range-checked on the way
out (LocalFault) and every length and value on the way in (RemoteFault).
"""

import struct
from collections import namedtuple

from kerb_wire.errors import RANGE, TRAILING, TRUNCATED, LocalFault, RemoteFault

_FORMATS = {"u8": "B", "u16": "H", "u32": "I", "i16": "h"}
_BOUNDS = {"u8": (0, 0xFF), "u16": (0, 0xFFFF), "u32": (0, 0xFFFFFFFF), "i16": (-32768, 32767)}


def is_whole(value, low: int, high: int) -> bool:
    """Tell whether `value` is a whole number (True and False are none) from low to high."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


class Field:
    """One field: `kind` is u8, u16, u32, i16, `bytesN` (fixed) or `rest` (last, at most `high`).

    low..high bounds a number; `extra` is one more allowed number (the "none" value).
    """

    def __init__(self, name, kind, low=None, high=None, extra=None):
        self.name = name
        self.kind = kind
        self.extra = extra
        self.fixed_bytes = int(kind[5:]) if kind.startswith("bytes") else None
        if kind in _BOUNDS:
            least, most = _BOUNDS[kind]
            self.low = least if low is None else low
            self.high = most if high is None else high
            self.format = _FORMATS[kind]
        else:
            self.low = 0 if low is None else low
            self.high = self.fixed_bytes or 0 if high is None else high
            self.format = f"{self.fixed_bytes}s" if self.fixed_bytes is not None else ""

    def allowed(self) -> str:
        """Return the allowed values as text, for messages and docs."""
        if self.fixed_bytes is not None:
            return f"{self.fixed_bytes} bytes"
        if self.kind == "rest":
            return f"{self.low} to {self.high} bytes"
        text = f"{self.low} to {self.high}"
        return text if self.extra is None else f"{text}, or {self.extra}"

    def fits(self, value) -> bool:
        """Tell whether `value` may stand in this field."""
        if self.fixed_bytes is not None:
            return isinstance(value, (bytes, bytearray)) and len(value) == self.fixed_bytes
        if self.kind == "rest":
            return isinstance(value, (bytes, bytearray)) and self.low <= len(value) <= self.high
        if self.extra is not None and is_whole(value, self.extra, self.extra):
            return True
        return is_whole(value, self.low, self.high)


class Layout:
    """A named row of fields, little-endian ("<") or, for registers, big-endian (">")."""

    def __init__(self, name, fields, order="<"):
        self.name = name
        self.fields = fields
        self.rest = fields[-1] if fields and fields[-1].kind == "rest" else None
        self._fixed = fields[:-1] if self.rest else fields
        self._format = order + "".join(field.format for field in self._fixed)
        self.size_bytes = struct.calcsize(self._format)
        # What a decoded number can break; a field that takes its kind's every value needs no look.
        self._checks = tuple(
            (at, field.low, field.high, field.extra)
            for at, field in enumerate(fields)
            if field.kind in _BOUNDS and (field.low, field.high) != _BOUNDS[field.kind]
        )
        self.Row = namedtuple(name, tuple(field.name for field in fields))

    def pack(self, *values) -> bytes:
        """Return `values`, one for each field, as bytes; LocalFault names the first misfit."""
        if len(values) != len(self.fields):
            raise LocalFault(self.name, len(values), f"{len(self.fields)} values")
        for field, value in zip(self.fields, values):
            if not field.fits(value):
                raise LocalFault(f"{self.name}.{field.name}", value, field.allowed())
        if self.rest:
            return struct.pack(self._format, *values[:-1]) + bytes(values[-1])
        return struct.pack(self._format, *values)

    def unpack(self, data: bytes):
        """Return the row that `data` (exactly one, as bytes) holds; RemoteFault otherwise."""
        size = len(data)
        if size < self.size_bytes:
            raise RemoteFault(TRUNCATED, f"{self.name}: {size} of {self.size_bytes} bytes")
        if size > self.size_bytes and not self.rest:
            raise RemoteFault(TRAILING, f"{self.name}: {size}, not {self.size_bytes} bytes")
        values = struct.unpack_from(self._format, data)
        for at, low, high, extra in self._checks:  # struct gives whole numbers: a range is enough
            value = values[at]
            if not (low <= value <= high or value == extra):
                field = self.fields[at]
                raise RemoteFault(
                    RANGE, f"{self.name}.{field.name} = {value!r}: {field.allowed()}"
                )
        if self.rest:
            values = values + (self._rest_of(data),)
        return self.Row(*values)

    def _rest_of(self, data: bytes) -> bytes:
        """Return the last field; its length is all that can be wrong, and no text repeats it.

        As text it would be four times as long, in one piece: more than a node's heap may have.
        """
        size = len(data) - self.size_bytes
        if not self.rest.low <= size <= self.rest.high:
            raise RemoteFault(
                RANGE, f"{self.name}.{self.rest.name}: {size}, not {self.rest.allowed()}"
            )
        return bytes(data[self.size_bytes :])
