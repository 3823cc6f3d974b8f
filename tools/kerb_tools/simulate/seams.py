"""What of the gateway's modules is exchanged for the time of a run.

Rule: three kinds of things only: sources of randomness, the serial client's class, and pauses of
loops that look again and again (a year has more than a billion of them). `classify` is counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from kerb_gateway import (
    app,
    backfill,
    commands,
    group,
    ingest,
    publisher,
    replay,
    tails,
    timekeeper,
)
from kerb_gateway.links import modbus
from kerb_gateway.store import database, restore

from kerb_tools.simulate.bus import Answer
from kerb_tools.simulate.coverage import Coverage

_PAUSES: tuple[tuple[Any, str, float], ...] = (
    (publisher, "_LOOK_S", 240.0),
    (publisher, "_PAUSE_S", 600.0),
    (publisher, "_IDLE_S", 600.0),
    (commands, "_TICK_S", 120.0),
    (modbus, "_TICK_S", 240.0),
    (replay, "_IDLE_S", 1800.0),
    (app, "BEAT_MS", 600_000),
    (timekeeper, "BEAT_MS", 600_000),
    (tails, "_LOOK_S", 600.0),
    (group, "_TICK_MAX_S", 120.0),
)


@contextlib.contextmanager
def exchanged(random: Random, open_bus: Callable[..., Any], coverage: Coverage) -> Iterator[None]:
    """Exchange them while this lasts; open_bus: stands in for the serial client's class."""
    dice = SimpleNamespace(
        urandom=random.randbytes,
        randbelow=random.randrange,
        token_hex=lambda size: random.randbytes(size).hex(),
    )
    changes: list[tuple[Any, str, Any]] = [
        *_PAUSES,
        (backfill, "os", dice),
        (commands, "secrets", dice),
        (group, "secrets", dice),
        (database, "secrets", dice),
        (restore, "secrets", dice),
        (modbus, "AsyncModbusSerialClient", open_bus),
        (modbus, "_ANSWERS", {method: Answer for method in modbus._ANSWERS}),
        (ingest, "classify", coverage.counting(ingest.classify)),
    ]
    with contextlib.ExitStack() as stack:
        for module, name, value in changes:
            stack.enter_context(mock.patch.object(module, name, value))
        yield
