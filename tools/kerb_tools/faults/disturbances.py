"""What can be wrong around a gateway without anything dying: disk, broker, network, clock.

Rule: each of them makes sure that it was met (an exit status, a line of the log, a count of the
library); a disturbance that the gateway did not notice proves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kerb_tools.faults.library.control import Control
from kerb_tools.faults.outcome import Outcome
from kerb_tools.faults.proxy import Proxy
from kerb_tools.faults.recovery import Fault
from kerb_tools.faults.rig import Rig, now_s

_NOTICED_S = 30.0
_LOOK_S = 0.1
_FULL_S, _SLOW_S, _FROZEN_S, _CLOCK_S = 5.0, 7.0, 6.0, 3.0
_SLOW_SYNC_MS = 2000
_YEAR_MS = 365 * 86400 * 1000
_JUMPS_MS = (-20 * _YEAR_MS, 10 * _YEAR_MS, 30 * _YEAR_MS, -3_600_000, 3_600_000)
_FILL_BYTES = 65536


@dataclass
class Around:
    """What a disturbance has its hands on."""

    rig: Rig
    control: Control
    proxy: Proxy
    disk: Path
    is_mounted: bool
    rng: random.Random
    outcome: Outcome

    async def noticed(self, ready: Callable[[], bool], what: str) -> bool:
        """Wait until something is so; a fault of the run if it never is."""
        deadline = now_s() + _NOTICED_S
        while now_s() < deadline:
            if ready():
                return True
            await asyncio.sleep(_LOOK_S)
        self.outcome.fault(f"never seen within {_NOTICED_S:.0f} s: {what}")
        return False


def _lasted(kind: str) -> Fault:
    """Return a fault whose recovery counts from its end, which is now."""
    return Fault(kind, now_s(), now_s())


async def disk_full(around: Around) -> Fault:
    """Leave no byte free until the gateway says so, and a while longer; then make room."""
    said = around.rig.gateway_says("disk full: nothing is acknowledged")
    filler = around.disk / "filler"
    if not around.is_mounted:
        around.control.write_error(errno.ENOSPC)
    full_until_s = now_s() + _FULL_S

    def full() -> bool:
        if around.is_mounted:
            _fill(filler)  # again and again: a ballast that is thrown off makes room too
        says = around.rig.gateway_says("disk full: nothing is acknowledged") > said
        return says and now_s() > full_until_s

    await around.noticed(full, "the gateway says that the disk is full")
    filler.unlink(missing_ok=True)
    around.control.write_error(0)
    fault = _lasted("disk full")
    await around.noticed(
        lambda: (
            around.rig.gateway_says("disk has room again")
            >= around.rig.gateway_says("disk full: nothing is acknowledged")
        ),
        "the gateway says that there is room again",
    )
    return fault


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (_FILL_BYTES, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    if os.write(file.fileno(), bytes(size)) < size:
                        break


async def failed_sync(around: Around) -> Fault:
    """Let a sync fail: the gateway must end at once with status 1, and is started again."""
    return await _fails(around, around.control.sync_error, "sync failed (EIO)")


async def failed_write(around: Around) -> Fault:
    """Let a write fail."""
    return await _fails(around, around.control.write_error, "write failed (EIO)")


async def _fails(around: Around, switch: Callable[[int], None], kind: str) -> Fault:
    at_s = now_s()
    switch(errno.EIO)
    process = around.rig.gateway
    ended = await around.noticed(lambda: process.returncode is not None, "the gateway ends")
    switch(0)
    if ended and process.returncode != 1:
        around.outcome.fault(f"{kind}: the gateway ended with {process.returncode}, not 1")
    if ended:
        await around.rig.start_gateway()
    return Fault(kind, at_s, now_s())


async def slow_disk(around: Around) -> Fault:
    """Let each sync take two seconds."""
    before = around.control.syncs
    around.control.sync_delay(_SLOW_SYNC_MS)
    await asyncio.sleep(_SLOW_S)
    around.control.sync_delay(0)
    if around.control.syncs == before:
        around.outcome.fault("slow disk: the gateway did not sync at all")
    return _lasted("slow disk")


async def slow_broker(around: Around) -> Fault:
    """Let every answer take long and the rate be that of a bad mobile link."""
    around.proxy.slow(delay_s=around.rng.uniform(0.3, 1.0), bytes_per_s=3000)
    await asyncio.sleep(_SLOW_S)
    around.proxy.slow()
    return _lasted("slow broker")


async def half_open(around: Around) -> Fault:
    """Let the connection go half-open: only the keepalive can tell."""
    before = around.rig.gateway_says('"uplink connected"')
    at_s = now_s()
    around.proxy.half_open()
    await around.noticed(
        lambda: around.rig.gateway_says('"uplink connected"') > before,
        "the gateway connects again",
    )
    return Fault("half-open connection", at_s, at_s)


async def wall_clock(around: Around) -> Fault:
    """Let the wall clock jump, by an hour or by decades, there and back."""
    around.control.wall_offset(around.rng.choice(_JUMPS_MS))
    await asyncio.sleep(_CLOCK_S)
    return _lasted("wall clock jumped")


async def frozen_gateway(around: Around) -> Fault:
    """Stop the gateway's process and let it go on."""
    around.rig.gateway.send_signal(signal.SIGSTOP)
    await asyncio.sleep(_FROZEN_S)
    around.rig.gateway.send_signal(signal.SIGCONT)
    return _lasted("gateway frozen")


async def frozen_broker(around: Around) -> Fault:
    """Stop the broker's process, longer than the keepalive, and let it go on."""
    around.rig.street.broker.freeze()
    await asyncio.sleep(_FROZEN_S * 2)
    around.rig.street.broker.thaw()
    return _lasted("broker frozen")


DISTURBANCES: tuple[Callable[[Around], Awaitable[Fault]], ...] = (
    disk_full,
    failed_sync,
    failed_write,
    slow_disk,
    slow_broker,
    half_open,
    wall_clock,
    frozen_gateway,
    frozen_broker,
)
