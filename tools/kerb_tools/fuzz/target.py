"""A target: a function that takes a stranger's bytes, and what it may do with them.

Rule: `run` returns, or raises one of `allowed`; everything else is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kerb_wire.errors import RemoteFault

from kerb_tools.fuzz.both.wire_targets import Broken

Run = Callable[[bytes], object]

__all__ = ["Broken", "Run", "Target"]


@dataclass(frozen=True)
class Target:
    """One target.

    make: returns `run`, after whatever it needs once; seeds: valid inputs, made by the encoders;
    repair: mends what a blind change always breaks (a checksum), so that the change reaches what
    lies behind; tokens: words of a text format; both: it runs on MicroPython too.
    """

    name: str
    about: str
    make: Callable[[], Run]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[Exception], ...] = (RemoteFault,)
    repair: Callable[[bytes], bytes] | None = None
    tokens: tuple[bytes, ...] = ()
    both: bool = False
    most_bytes: int = 2048
    traced: tuple[str, ...] = ("kerb_wire", "kerb_gateway")
