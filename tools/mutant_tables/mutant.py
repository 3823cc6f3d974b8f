"""One way to break a mechanism."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`name` says what is broken; `test` is what must turn red."""

    name: str
    file: str
    old: str
    new: str
    test: str
