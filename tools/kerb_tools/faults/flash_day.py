"""Power cuts at every flash write of a bin's day: 96 wakes, each write of each wake.

A real MicroPython board on a bare world (no gateway) lives through the day; before each wake its
chips' files are copied, and from that copy the wake is begun again as often as it has writes, the
power going at another one each time. Then it is switched on, and its flash is read on the host.
Most wakes come out of deep sleep; some follow a power loss, where numbers are reserved anew.
Writes that a gateway's acknowledgement causes are not here; the streets have them.

Rule: what lay on the flash before a cut lies there after it, but for the oldest that a new segment
pushes out; no number is used twice; nothing was advertised that is not stored.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from kerb_check import flash
from kerb_check.flash import Flash
from kerb_check.model import SourceError
from kerb_sim.air.medium import Air
from kerb_sim.board.spec import BoardSpec, manufacture
from kerb_sim.board.virtual import VirtualBoard
from kerb_wire import provisioning

from kerb_tools.faults import scratch
from kerb_tools.faults.outcome import Outcome
from kerb_tools.faults.rig import Needs

_NODE_ID = bytes.fromhex("a4cf12000010")
_WAKE_S = 60.0
_SIDE_BY_SIDE = 4
_COLD_WAKES = 0.04  # share of wakes that follow a power loss
_ECHO_US = 6000
_TEMPERATURE_UV, _CELL_UV = 902_000, 1_650_000
_TEMPERATURE_PIN = 34
_SETTINGS = {
    "console_window_ms": 0,
    "pings": 3,
    "ping_gap_ms": 40,
    "advert_ms": 50,
    "advert_interval_ms": 20,
    "connect_window_ms": 200,
    "log_rows": 8,
    "log_segments": 6,  # the ring comes round twice in a day
}


@dataclass
class _BareWorld:
    """Answers every ping alike and keeps what was advertised."""

    adverts: dict[int, set[bytes]] = field(default_factory=dict)

    def echo_us(self, pin: int) -> int:
        return _ECHO_US

    def adc_uv(self, pin: int) -> int:
        return _TEMPERATURE_UV if pin == _TEMPERATURE_PIN else _CELL_UV

    def pin_level(self, pin: int) -> int:
        return 1

    def pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        """A bin has no output."""

    def booted(self, cause: str) -> None:
        """Nothing changes."""

    def slept(self, duration_ms: int) -> None:
        """Nothing changes."""

    def power_lost(self) -> None:
        """Nothing changes."""

    def advertised(self, data: bytes) -> None:
        counter = int.from_bytes(data[-8:-4], "little")
        self.adverts.setdefault(counter, set()).add(data)


class _Day:
    """One board's day and the cuts that branch off it."""

    def __init__(self, folder: Path, seed: int, needs: Needs, outcome: Outcome) -> None:
        self._folder = folder
        self._rng = random.Random(f"day/{seed}")
        self._needs = needs
        self._outcome = outcome
        self._slots = asyncio.Semaphore(_SIDE_BY_SIDE)

    def _spec(self, directory: Path) -> BoardSpec:
        identity = provisioning.pack(0, 0, _NODE_ID, bytes(range(16)), b"day")
        return BoardSpec(_NODE_ID, directory, identity, _SETTINGS)

    def _board(self, directory: Path, world: _BareWorld) -> VirtualBoard:
        return VirtualBoard(
            self._spec(directory), world, interpreter=self._needs.interpreter, air=Air(1)
        )

    async def live(self, wakes: int) -> None:
        """Live through so many wakes, with every cut of each."""
        today = self._folder / "today"
        manufacture(self._spec(today))
        branches: list[asyncio.Task[None]] = []
        for wake in range(wakes):
            cold = wake == 0 or self._rng.random() < _COLD_WAKES
            if cold:
                (today / "rtc.bin").unlink(missing_ok=True)
            before = self._folder / f"before{wake}"
            shutil.copytree(today, before)
            cause = "power_on" if cold else "deep_sleep"
            board = self._board(today, _BareWorld())
            await board.power_on(cause)
            await board.wait_for("sleeping", timeout_s=_WAKE_S)
            await board.close()
            branches.append(
                asyncio.ensure_future(self._cuts(before, wake, cause, board.flash_writes))
            )
            self._outcome.count += 1
            self._outcome.add(f"wakes: {cause}")
        await asyncio.gather(*branches)

    async def _cuts(self, before: Path, wake: int, cause: str, writes: int) -> None:
        """Cut at every write of one wake; the copy it began from goes at the end."""
        image = flash.read(before / "flash.img", _NODE_ID.hex())
        await asyncio.gather(
            *(self._cut(before, image, wake, cause, number) for number in range(1, writes + 1))
        )
        shutil.rmtree(before)

    async def _cut(self, before: Path, image: Flash, wake: int, cause: str, number: int) -> None:
        async with self._slots:
            directory = self._folder / f"cut{wake}-{number}"
            shutil.copytree(before, directory)
            world = _BareWorld()
            board = self._board(directory, world)
            board.cut_power_at_flash_write(number)
            await board.power_on(cause)
            if await board.wait_for("dead", "sleeping", timeout_s=_WAKE_S) == "dead":
                self._outcome.add(f"cuts: {cause}")
            else:
                self._outcome.add("writes that came no more")
            await board.power_on()
            await board.wait_for("sleeping", timeout_s=_WAKE_S)
            await board.close()
            where = f"wake {wake}, write {number}"
            for fault in _faults(image, directory, world, board.console()):
                self._outcome.fault(f"{where}: {fault}")
            shutil.rmtree(directory)


def _faults(before: Flash, directory: Path, world: _BareWorld, console: str) -> list[str]:
    """Return what is wrong with a flash after a cut and a start."""
    try:
        after = flash.read(directory / "flash.img", _NODE_ID.hex())
    except SourceError as error:
        return [str(error)]
    numbers = [(one.identity.epoch, one.identity.seq) for one in after.readings]
    found = []
    if len(numbers) != len(set(numbers)):
        found.append("a number was used twice")
    if after.damaged_rows:
        found.append(f"{after.damaged_rows} damaged rows")
    first = numbers[0][1] if numbers else 0
    gone = {(one.identity.epoch, one.identity.seq) for one in before.readings} - set(numbers)
    if any(seq > first for _, seq in gone):
        found.append(f"gone: {sorted(gone)}")
    stored = {seq for _, seq in numbers}
    for counter, contents in world.adverts.items():
        if len(contents) > 1:
            found.append(f"number {counter} with {len(contents)} contents")
        if counter not in stored:
            found.append(f"number {counter} advertised before it was stored")
    if "Traceback" in console:
        found.append("a traceback on the console")
    return found


def job(seed: int, budget: int, work: Path) -> Outcome:
    """Live through `budget` wakes of a day."""
    outcome = Outcome()
    with scratch.folder("kerb-day-", scratch.memory()) as folder:
        day = _Day(folder, seed, Needs.found(), outcome)
        asyncio.run(day.live(budget))
    return outcome
