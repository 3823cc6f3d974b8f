"""The power goes at every flash write of one wake: nothing that was advertised may be lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from boards import NODE_ID, BareWorld, bin_board
from kerb_check import flash

_WAKE_S = 15.0


def test_power_cut_at_every_flash_write_of_one_wake(tmp_path: Path) -> None:
    """Every write of a first wake and of a later one, counted; the board always comes back."""

    async def writes_of_a_wake(directory: Path) -> int:
        board = bin_board(directory, BareWorld())
        await board.power_on()
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        return board.flash_writes

    async def cut(directory: Path, number: int) -> None:
        world = BareWorld()
        board = bin_board(directory, world)
        board.cut_power_at_flash_write(number)
        await board.power_on()
        assert await board.wait_for("dead", "sleeping", timeout_s=_WAKE_S) == "dead"
        await board.power_on()
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        image = flash.read(board.spec.flash_path, NODE_ID.hex())
        numbers = [reading.identity.seq for reading in image.readings]
        assert numbers == sorted(set(numbers)), "a number was used twice"
        assert image.damaged_rows == 0
        newest_epoch = image.readings[-1].identity.epoch
        on_flash = {r.identity.seq for r in image.readings if r.identity.epoch == newest_epoch}
        for counter, contents in world.adverts.items():
            assert len(contents) == 1, "one counter with two plaintexts"
            assert counter in on_flash, "advertised before it was stored"
        assert "Traceback" not in board.console()

    async def story() -> None:
        total = await writes_of_a_wake(tmp_path / "count")
        assert total > 3
        for number in range(1, total + 1):
            directory = tmp_path / f"cut{number}"
            await cut(directory, number)
            shutil.rmtree(directory)

    asyncio.run(story())


def test_a_crashing_application_ends_in_safe_mode(tmp_path: Path) -> None:
    """Three crashes in a row: no measuring any more, an advert that says so, a long sleep."""

    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world, safe_mode_wake_ms=60000, crash_limit=3)
        world.echo_us = lambda pin: "no number"  # type: ignore[method-assign,assignment,return-value]
        await board.power_on()
        for _ in range(200):
            if world.adverts:
                break
            await asyncio.sleep(0.05)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        image = flash.read(board.spec.flash_path, NODE_ID.hex())
        assert [r.content["event"] for r in image.readings] == ["crash"]
        assert image.readings[0].content["quality"] == "not_measured"

    asyncio.run(story())


def test_a_board_that_was_falling_asleep_stays_off_after_a_power_cut(tmp_path: Path) -> None:
    """Else its alarm starts a second chip beside the one that the power brings back."""

    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld())
        await board.power_on()
        board._on_sleep(50, [], 0)  # asked for, and not yet carried out
        await board.power_cut()
        await asyncio.sleep(0.5)
        assert board.state == "off"
        assert board.counts == {"power_on": 1}
        await board.close()

    asyncio.run(story())


def test_what_a_board_says_while_it_dies_is_said_by_nobody(tmp_path: Path) -> None:
    """Its last call is read while the process ends: it must not sleep, wake and run beside the
    next one on the same flash."""

    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path, world)
        for late in (lambda: board._on_sleep(10, [], 0), lambda: board._on_reset("soft", 0)):
            await board.power_on()
            cut = asyncio.ensure_future(board.power_cut())
            while board._chip is not None:
                await asyncio.sleep(0)
            assert not cut.done()
            late()
            await cut
            await asyncio.sleep(0.2)
            assert board.state == "off"
        assert world.boots == ["power_on"] * 2
        await board.close()

    asyncio.run(story())
