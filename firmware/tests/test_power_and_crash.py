"""Power that goes while the log rotates, and a lamp whose application fails, on virtual boards."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path

from boards import NODE_ID, BareWorld, bin_board, lamp_board
from kerb_check import flash
from kerb_check.flash import Flash
from kerb_sim.board.spec import BoardSpec, manufacture
from kerb_sim.board.virtual import VirtualBoard
from streets import interpreter

_WAKE_S = 15.0
_ROWS = 4
_SEGMENTS = 2


def image(spec: BoardSpec) -> Flash:
    return flash.read(spec.flash_path, NODE_ID.hex())


def test_power_cut_at_every_flash_write_while_the_log_rotates(tmp_path: Path) -> None:
    """A full log drops its oldest segment, and at no moment more than that one."""

    async def boot(board: VirtualBoard) -> None:
        await board.power_on()
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.power_cut()

    async def copy(name: str, world: BareWorld) -> VirtualBoard:
        made = bin_board(tmp_path / name, world, log_rows=_ROWS, log_segments=_SEGMENTS)
        for path in (made.spec.flash_path, made.spec.nvs_path):
            shutil.copy(tmp_path / "full" / path.name, path)
        return made

    async def cut(number: int, kept: set[int]) -> None:
        world = BareWorld()
        board = await copy(f"cut{number}", world)
        board.cut_power_at_flash_write(number)
        await board.power_on()
        assert await board.wait_for("dead", "sleeping", timeout_s=_WAKE_S) == "dead"
        await boot(board)
        await board.close()
        found = image(board.spec)
        numbers = [one.identity.seq for one in found.readings]
        assert numbers == sorted(set(numbers)) and found.damaged_rows == 0
        assert kept <= set(numbers), "more than the oldest segment went"
        assert set(world.adverts) <= set(numbers)
        assert all(len(contents) == 1 for contents in world.adverts.values())
        assert "Traceback" not in board.console()
        shutil.rmtree(board.spec.directory)

    async def story() -> None:
        full = bin_board(tmp_path / "full", BareWorld(), log_rows=_ROWS, log_segments=_SEGMENTS)
        for _ in range(_ROWS * _SEGMENTS):
            await boot(full)
        await full.close()
        stored = [one.identity.seq for one in image(full.spec).readings]
        assert len(stored) == _ROWS * _SEGMENTS
        rotating = await copy("count", BareWorld())
        await boot(rotating)
        await rotating.close()
        after = [one.identity.seq for one in image(rotating.spec).readings]
        assert after[:-1] == stored[_ROWS:]
        assert rotating.flash_writes > 3
        for number in range(1, rotating.flash_writes + 1):
            await cut(number, set(stored[_ROWS:]))

    asyncio.run(story())


async def until_advert(world: BareWorld, number: int) -> None:
    """Wait for the number-th advert: the radio has started."""
    async with asyncio.timeout(_WAKE_S):
        while len(world.adverts) < number:
            await asyncio.sleep(0.005)


def test_a_cell_that_breaks_down_at_each_start_is_left_to_rest(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world, safe_mode_wake_ms=1500)
        for number in range(1, 6):
            await board.power_on()
            await until_advert(world, number)
            await board.power_cut()
        await board.power_on()
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        assert len(world.adverts) == 5, "it tried the radio a sixth time"
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        assert len(world.adverts) == 6, "the rest did not end"
        assert "the supply breaks down" in board.console()
        events = [one.content["event"] for one in image(board.spec).readings]
        assert events == ["boot"] * 6

    asyncio.run(story())


def test_panics_below_the_application_end_in_safe_mode(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world, safe_mode_wake_ms=60000, crash_limit=3)
        await board.power_on()
        for number in range(1, 4):
            await until_advert(world, number)
            await board.panic()
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        assert image(board.spec).readings[-1].content["event"] == "crash"
        assert world.boots == ["power_on", "hard", "hard", "hard"]

    asyncio.run(story())


def test_a_tree_that_does_not_load_lets_the_battery_board_sleep(tmp_path: Path) -> None:
    async def story() -> None:
        firmware = tmp_path / "firmware"
        shutil.copytree(BoardSpec.firmware, firmware)
        (firmware / "kerb_node" / "app.py").write_text("import no_such_module\n")
        made = bin_board(tmp_path / "node", BareWorld())
        spec = dataclasses.replace(made.spec, firmware=firmware)
        board = VirtualBoard(spec, BareWorld(), interpreter=interpreter())
        await board.power_on()
        await board.wait_for("sleeping", timeout_s=_WAKE_S + 10)
        await board.close()
        assert "ImportError" in board.console()

    asyncio.run(story())


def test_a_lamp_whose_log_fails_starts_anew_and_burns_on(tmp_path: Path) -> None:
    class Faulty(BareWorld):
        """A world in which reading the service switch fails for a while."""

        failing = False

        def pin_level(self, pin: int) -> int:
            if self.failing:
                raise OSError(5)
            return super().pin_level(pin)

    async def story() -> None:
        world = Faulty()
        bus, _, made = lamp_board(tmp_path / "node", world)
        bus.start()
        settings = made.spec.settings | {"log_interval_ms": 500}
        spec = dataclasses.replace(made.spec, settings=settings)
        manufacture(spec)
        board = VirtualBoard(spec, world, interpreter=interpreter())
        await board.power_on()
        while not world.duty_u16:
            await asyncio.sleep(0.02)
        world.failing = True
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        assert world.duty_u16, "the lamp went dark"
        world.failing = False
        await board.wait_for("running", timeout_s=_WAKE_S)
        await asyncio.sleep(2)
        await board.close()
        bus.close()
        assert "OSError" in board.console()
        assert world.boots == ["power_on", "deep_sleep"] and world.duty_u16
        events = [one.content["event"] for one in image(spec).readings]
        assert events.count("boot") == 2 and "periodic" in events[events.index("boot", 1) :]

    asyncio.run(asyncio.wait_for(story(), 60))
