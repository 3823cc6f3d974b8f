"""Changes to inputs: what a bad cable, a wrong version and a clever enemy would do.

Rule: everything comes from the `random.Random` that is handed in, so a seed repeats a run.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 200, 247, 254, 255)
_WIDE = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000)
_WIDER = (0xFFFFFFFE, 0xFFFFFFFF)
_TEXT_PARTS = re.compile(rb"[A-Za-z0-9_.+-]+|\s+|.", re.DOTALL)
_STACK_MOST = 4

Change = Callable[[bytearray, random.Random], bytearray]


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _set(data: bytearray, rng: random.Random) -> bytearray:
    if data:
        value = rng.choice(_EDGES) if rng.random() < 0.7 else rng.randrange(256)
        data[rng.randrange(len(data))] = value
    return data


def _number(data: bytearray, rng: random.Random) -> bytearray:
    """A whole number of 2 or 4 bytes becomes an extreme one, in either order of bytes."""
    size = rng.choice((2, 4))
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        value = rng.choice(_WIDE + _WIDER) & ((1 << (8 * size)) - 1)
        data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return data


def _step(data: bytearray, rng: random.Random) -> bytearray:
    if data:
        at = rng.randrange(len(data))
        data[at] = (data[at] + rng.choice((-2, -1, 1, 2))) & 0xFF
    return data


def _insert(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randint(0, len(data))
    return data[:at] + bytearray(rng.randbytes(rng.choice((1, 1, 2, 4, 8, 24)))) + data[at:]


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    if not data:
        return data
    at = rng.randrange(len(data))
    size = rng.choice((1, 1, 2, 4, len(data)))
    return data[:at] + data[at + size :]


def _truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randint(0, len(data))]


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    if not data:
        return data
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 2, 4, 8, 24, 64))]
    times = rng.choice((1, 1, 2, 8))
    return data[:at] + piece * times + data[at:]


def _swap(data: bytearray, rng: random.Random) -> bytearray:
    if len(data) < 4:
        return data
    size = rng.randint(1, len(data) // 2)
    one, other = rng.randint(0, len(data) - size), rng.randint(0, len(data) - size)
    data[one : one + size], data[other : other + size] = (
        data[other : other + size],
        data[one : one + size],
    )
    return data


_CHANGES: tuple[Change, ...] = (
    _flip, _set, _set, _number, _step, _insert, _cut, _truncate, _repeat, _swap,
)  # fmt: skip


class Mutator:
    """Makes new inputs from old ones."""

    def __init__(
        self,
        rng: random.Random,
        *,
        tokens: Sequence[bytes] = (),
        repair: Callable[[bytes], bytes] | None = None,
        most_bytes: int = 2048,
    ) -> None:
        self._rng = rng
        self._tokens = tokens
        self._repair = repair
        self._most_bytes = most_bytes

    def change(self, parent: bytes, other: bytes) -> bytes:
        """Return `parent` changed; `other` is what a part of it may come from."""
        rng = self._rng
        data = bytearray(parent)
        for _ in range(rng.randint(1, _STACK_MOST)):
            if self._tokens and rng.random() < 0.6:
                data = self._word(data, other)
            elif rng.random() < 0.1:
                data = self._splice(data, other)
            else:
                data = rng.choice(_CHANGES)(data, rng)
        made = bytes(data[: self._most_bytes])
        if self._repair is not None and rng.random() < 0.75:
            return self._repair(made)
        return made

    def _splice(self, data: bytearray, other: bytes) -> bytearray:
        rng = self._rng
        return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]

    def _word(self, data: bytearray, other: bytes) -> bytearray:
        """Change a text by its words: one goes, comes, comes twice, or becomes another."""
        rng = self._rng
        parts = _TEXT_PARTS.findall(bytes(data)) or [b""]
        at = rng.randrange(len(parts))
        borrowed = rng.choice(_TEXT_PARTS.findall(other) or [b""])
        new = borrowed if rng.random() < 0.3 else rng.choice(self._tokens)
        parts[at : at + rng.choice((0, 1, 1, 1, 3))] = [new] * rng.choice((0, 1, 1, 1, 1, 2))
        return bytearray(b"".join(parts))
