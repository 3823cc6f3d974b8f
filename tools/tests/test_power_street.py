"""A street on which the power goes at every flash write of a wake, each time at another one.

Both kinds of wake: out of deep sleep (a record is appended) and after the power came back (a
block of numbers is reserved, a segment begun). Gateway, broker and checker are the real ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from kerb_sim.board.virtual import VirtualBoard
from kerb_tools.demo.run import Demo
from streets import assert_accounted, run_street

_BINS = 6
_ASLEEP = 4
_LOG_ROWS = 4  # every fourth record begins a segment: more writes than an append
_WAKE_S = 20.0
_DURATION_S = 12.0
_SCALE = 600.0  # a wake every 1.5 s


async def _dies_out_of_sleep(board: VirtualBoard, number: int) -> bool:
    """Tell whether the next wake had a write `number`, at which the power went."""
    await board.wait_for("sleeping", timeout_s=_WAKE_S)
    board.cut_power_at_flash_write(number)
    await board.wait_for("running", timeout_s=_WAKE_S)
    return await board.wait_for("dead", "sleeping", timeout_s=_WAKE_S) == "dead"


async def _dies_at_power_on(board: VirtualBoard, number: int) -> bool:
    await board.wait_for("sleeping", timeout_s=_WAKE_S)
    await board.power_cut()
    board.cut_power_at_flash_write(number)
    await board.power_on()
    return await board.wait_for("dead", "sleeping", timeout_s=_WAKE_S) == "dead"


@dataclass
class Sweep:
    """Cuts wake after wake, each at the next write, until a wake has none so late; then anew."""

    boards: list[VirtualBoard]
    dies: Callable[[VirtualBoard, int], Awaitable[bool]]
    times: int
    cuts: Counter[int] = field(default_factory=Counter)
    survived: list[int] = field(default_factory=list)

    async def run(self) -> None:
        self._numbers = count(1)
        await asyncio.gather(*(self._one(board) for board in self.boards))

    async def _one(self, board: VirtualBoard) -> None:
        while len(self.survived) < self.times:
            number = next(self._numbers)
            if await self.dies(board, number):
                self.cuts[number] += 1
                await board.power_on()
            else:
                self.survived.append(number)
                self._numbers = count(1)

    @property
    def whole(self) -> bool:
        """Whether no write of the longest wake was left out."""
        return sorted(self.cuts) == list(range(1, max(self.cuts) + 1))


def test_power_cut_at_every_flash_write_on_a_street(tmp_path: Path) -> None:
    sweeps: list[Sweep] = []

    async def cut(demo: Demo) -> None:
        boards = [member.board for member in demo.street.members]
        sweeps.append(Sweep(boards[:_ASLEEP], _dies_out_of_sleep, times=8))
        sweeps.append(Sweep(boards[_ASLEEP:], _dies_at_power_on, times=2))
        await asyncio.gather(*(sweep.run() for sweep in sweeps))

    verdict = run_street(
        tmp_path,
        bins=_BINS,
        lamps=0,
        duration_s=_DURATION_S,
        during=cut,
        scale=_SCALE,
        bin_settings={"log_rows": _LOG_ROWS, "log_segments": 64},
    )
    assert_accounted(verdict)
    asleep, powered = sweeps
    print(f"cut at each write of a wake, times: {dict(asleep.cuts)}; power-on: {powered.cuts}")
    assert asleep.whole
    assert powered.whole
    assert max(asleep.cuts) >= 2  # a wake that begins a segment writes more than one that appends
    assert max(powered.cuts) > max(asleep.cuts)
    assert verdict.figures["declared_lost"] > 0
