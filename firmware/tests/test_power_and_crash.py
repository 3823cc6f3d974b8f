"""Power that goes while the log rotates, and a lamp whose application fails, on virtual boards."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from struct import pack

from boards import NODE_ID, BareWorld, bin_board, lamp_board, mounted
from kerb_check import flash
from kerb_check.flash import Flash
from kerb_sim.air.medium import Air
from kerb_sim.board.spec import BoardSpec, manufacture
from kerb_sim.board.virtual import VirtualBoard
from kerb_wire import records, segment
from littlefs import LittleFSError
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


class Crowded:
    """A board on whose flash the log and other files have left no block free."""

    epoch = 0x11223344
    rows = 256  # two blocks

    def __init__(self, made: VirtualBoard, template: bytes) -> None:
        settings = made.spec.settings | {"log_rows": self.rows, "log_segments": 16}
        self.spec = dataclasses.replace(made.spec, settings=settings, flash_blocks=24)
        manufacture(self.spec)
        self._template = template
        self._disk, context = mounted(self.spec)
        self._disk.mkdir("log")
        segments = self._many(self._put_segment)
        self._many(lambda number: self._put(f"other{number}", bytes(4000)))
        assert 4 < segments < 16
        self.last_seq = self.rows * segments
        self.spec.flash_path.write_bytes(bytes(context.buffer))
        nvs = {"identity": self.spec.identity.hex(), "epoch": self.epoch, "boot_no": 1}
        nvs |= {"seq_block": self.last_seq + 1, "log_began": 1}
        self.spec.nvs_path.write_text(json.dumps({"kerb": nvs}))

    def _put_segment(self, number: int) -> None:
        first_seq = self.rows * number + 1
        content = segment.pack_header(self.epoch, first_seq)
        for seq in range(first_seq, first_seq + self.rows):
            content += segment.pack_row(self._template[:4] + pack("<I", seq) + self._template[8:])
        self._put(f"log/{number + 1:08d}.seg", content)

    def _put(self, path: str, content: bytes) -> None:
        try:
            with self._disk.open(path, "wb") as file:
                file.write(content)
        except LittleFSError:
            self._disk.remove(path)
            raise

    def _many(self, put: Callable[[int], None]) -> int:
        for number in count():
            try:
                put(number)
            except LittleFSError:
                return number
        raise AssertionError

    def starts(self) -> int:
        """Return how many starts since then are on the flash."""
        return [one.content["event"] for one in image(self.spec).readings].count("boot")

    def stored(self) -> list[int]:
        """Return the numbers on the flash; the oldest segments, and no others, may be gone."""
        numbers = [one.identity.seq for one in image(self.spec).readings]
        assert numbers[0] % self.rows == 1
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        return numbers


def test_a_bin_on_a_full_file_system_stores_on(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        record = records.pack_fill(1, 1, 0, 1000, 3, 0, 200, 90, 0, 7, 7, 0, 0)
        crowded = Crowded(bin_board(tmp_path / "node", world), record)
        board = VirtualBoard(crowded.spec, world, interpreter=interpreter(), air=Air(1))
        await board.power_on()
        for _ in range(8):  # a few rows lie in the directory's blocks before a segment needs one
            await board.wait_for("sleeping", timeout_s=_WAKE_S)
            await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        numbers = crowded.stored()
        assert numbers[0] > 1, "it was not full"
        assert numbers[-1] >= crowded.last_seq + 9
        assert set(world.adverts) <= set(numbers)
        assert "Traceback" not in board.console()

    asyncio.run(story())


def test_a_lamp_on_a_full_file_system_stores_its_start(tmp_path: Path) -> None:
    """Before it serves: else it would be dark to its bus for ever."""

    async def story() -> None:
        world = BareWorld()
        bus, _, made = lamp_board(tmp_path / "node", world)
        crowded = Crowded(made, records.pack_lamp(1, 1, 0, 70, 0, 0, 0, 0, 0, 0))
        bus.start()
        board = VirtualBoard(crowded.spec, world, interpreter=interpreter())
        starts = 8
        for number in range(1, starts + 1):
            await board.power_on()
            async with asyncio.timeout(_WAKE_S):
                while crowded.starts() < number:
                    await asyncio.sleep(0.05)
            await board.power_cut()
        await board.close()
        bus.close()
        assert image(crowded.spec).readings[0].identity.seq > 1, "it was not full"
        assert "Traceback" not in board.console()

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


def test_a_restart_by_a_tool_alone_is_no_reason_for_safe_mode(tmp_path: Path) -> None:
    """machine.reset() ends kerb flash; nothing tells it from a panic."""

    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld(), crash_limit=1)
        await board.power_on("hard")
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        assert [one.content["event"] for one in image(board.spec).readings] == ["boot"]
        assert "crash_limit = 1: not 2 to 20; the default is 3" in board.console()

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
