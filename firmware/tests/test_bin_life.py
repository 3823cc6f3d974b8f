"""What befalls a bin in years, on a virtual board: lost memory, copied flash, tilt, strangers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aes import new_ecb
from boards import KEY, NODE_ID, BareWorld, bin_board, lamp_board, mounted
from kerb_check import flash
from kerb_sim.air.medium import Air, Connection
from kerb_sim.board.virtual import VirtualBoard
from kerb_wire import bthome, frame, gatt, keys, messages, provisioning, session
from streets import interpreter

_WAKE_S = 15.0
ADDRESS = ":".join(f"{octet:02X}" for octet in provisioning.address_of(NODE_ID))
OURS = provisioning.pack(0, 0, NODE_ID, KEY, b"test")
_NEW_KEY = bytes(range(100, 116))
RENEWED = provisioning.pack(0, 0, NODE_ID, _NEW_KEY, b"moved")


def live(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def one_wake(board: VirtualBoard) -> None:
    await board.power_on()
    await board.wait_for("sleeping", timeout_s=_WAKE_S)


async def greet(connection: Connection) -> Any:
    """Prove that this central is the gateway; return the node's hello."""
    heard: list[bytes] = []
    decoder = frame.Decoder()
    connection.on_notify = lambda handle, data: heard.extend(decoder.feed(data))
    down = next(
        one.handle
        for one in connection.station.services[0].characteristics
        if one.uuid == gatt.DOWN_UUID
    )
    handshake = session.GatewayHandshake(new_ecb, KEY, bytes(16), 5, 1000)
    await connection.write(down, frame.encode(session.plain(handshake.hello())))
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.02)
    node, proof, channel = handshake.finish(heard[0][1:])
    await connection.write(down, frame.encode(session.plain(proof)))
    bye = channel.seal(messages.encode(messages.BYE))
    await connection.write(down, frame.encode(bye))
    return node


def stored(board: VirtualBoard) -> list[Any]:
    return flash.read(board.spec.flash_path, NODE_ID.hex()).readings


def identities(board: VirtualBoard) -> tuple[bytes, bytes]:
    """Return the identity's copies: (in NVS, in the file)."""
    nvs = json.loads(board.spec.nvs_path.read_text())["kerb"]
    disk, _ = mounted(board.spec)
    try:
        with disk.open("identity.bin", "rb") as file:
            in_file = file.read()
    except FileNotFoundError:
        in_file = b""
    return bytes.fromhex(nvs.get("identity", "")), in_file


def put_file(board: VirtualBoard, blob: bytes) -> None:
    """Lay another identity.bin on the flash while the board is off."""
    disk, context = mounted(board.spec)
    with disk.open("identity.bin", "wb") as file:
        file.write(blob)
    board.spec.flash_path.write_bytes(bytes(context.buffer))


def put_nvs(board: VirtualBoard, **changes: Any) -> None:
    everything = json.loads(board.spec.nvs_path.read_text())
    space = everything["kerb"] | changes
    everything["kerb"] = {key: value for key, value in space.items() if value is not None}
    board.spec.nvs_path.write_text(json.dumps(everything))


def test_a_lost_nvs_is_mended_and_begins_a_new_epoch(tmp_path: Path) -> None:
    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld())
        await one_wake(board)
        await board.power_cut()
        board.spec.nvs_path.write_text("{}")
        await one_wake(board)
        await board.close()
        before, after = stored(board)
        assert before.identity.epoch != after.identity.epoch
        assert after.identity.seq == 1
        assert identities(board) == (OURS, OURS)

    live(story)


def test_a_count_that_is_lost_alone_begins_a_new_epoch(tmp_path: Path) -> None:
    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld())
        await one_wake(board)
        await board.power_cut()
        put_nvs(board, seq_block=None)
        await one_wake(board)
        await board.close()
        numbers = [(one.identity.epoch, one.identity.seq) for one in stored(board)]
        assert len(set(numbers)) == 2, "a number was used twice under one key"

    live(story)


def test_a_damaged_file_is_mended_from_nvs(tmp_path: Path) -> None:
    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld())
        put_file(board, OURS[:-1])
        await one_wake(board)
        await board.close()
        assert identities(board) == (OURS, OURS)
        assert len(stored(board)) == 1

    live(story)


def test_a_file_larger_than_the_heap_is_no_identity(tmp_path: Path) -> None:
    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld())
        await one_wake(board)
        await board.power_cut()
        put_file(board, bytes(200_000))
        await one_wake(board)
        await board.close()
        assert identities(board) == (OURS, OURS)
        assert len(stored(board)) == 2

    live(story)


def test_a_new_identity_file_is_taken(tmp_path: Path) -> None:
    """As `kerb flash --node` or mpremote lays it there: a rotated key, another site."""

    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world)
        await one_wake(board)
        await board.power_cut()
        put_file(board, RENEWED)
        await one_wake(board)
        await board.close()
        assert identities(board) == (RENEWED, RENEWED)
        assert "the identity is replaced by /identity.bin" in board.console()
        before, after = (one.identity for one in stored(board))
        assert before.epoch == after.epoch and before.seq < after.seq, "a nonce may come again"
        (advert,) = world.adverts[after.seq]
        ecb = new_ecb(keys.advert_key(new_ecb, _NEW_KEY, after.epoch))
        service_data = advert[advert.index(b"\xd2\xfc") + 2 :]
        address = provisioning.address_of(NODE_ID)
        assert bthome.unseal(ecb, address, service_data)[0] == after.seq

    live(story)


def test_power_cut_at_every_write_while_an_identity_is_taken(tmp_path: Path) -> None:
    async def story() -> None:
        number = 0
        survived = False
        while not survived:
            number += 1
            board = bin_board(tmp_path / f"cut{number}", BareWorld())
            put_file(board, RENEWED)
            board.cut_power_at_flash_write(number)
            await board.power_on()
            survived = await board.wait_for("dead", "sleeping", timeout_s=_WAKE_S) == "sleeping"
            await board.power_cut()
            await one_wake(board)
            await board.close()
            assert identities(board) == (RENEWED, RENEWED), number
            numbers = [one.identity.seq for one in stored(board)]
            assert numbers == sorted(set(numbers))
        assert number > 3

    live(story)


def test_a_lamp_that_is_made_a_bin_goes_on_behind_its_numbers(tmp_path: Path) -> None:
    """Its log and its RTC memory, which outlives the restart of kerb flash, are a lamp's."""

    async def story() -> None:
        world = BareWorld()
        bus, _, made = lamp_board(tmp_path / "node", world)
        board = VirtualBoard(made.spec, world, interpreter=interpreter(), air=Air(1))
        bus.start()
        await board.power_on()
        async with asyncio.timeout(_WAKE_S):
            while not world.duty_u16 or not stored(board):
                await asyncio.sleep(0.05)
        board.freeze()
        put_file(board, OURS)
        await board.panic()  # machine.reset(): the same to the port
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        bus.close()
        lamp, bin_ = stored(board)
        assert (lamp.content["kind"], bin_.content["kind"]) == ("lamp", "fill")
        assert (bin_.content["event"], bin_.content["quality"]) == ("boot", "good")
        assert lamp.identity.epoch == bin_.identity.epoch
        assert lamp.identity.seq < bin_.identity.seq
        assert "Traceback" not in board.console()

    live(story)


def test_without_an_identity_the_board_says_so_and_is_silent(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world)
        put_nvs(board, identity=None)
        put_file(board, b"")
        await one_wake(board)
        await board.close()
        assert "unprovisioned" in board.console()
        assert not world.adverts and not stored(board)

    live(story)


def test_with_the_root_key_lost_the_board_says_so_and_stores_on(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world)
        await one_wake(board)
        await board.power_cut()
        put_nvs(board, identity=None)
        put_file(board, b"")
        await one_wake(board)
        assert "unprovisioned" in board.console()
        assert set(world.adverts) == {1}, "advertised without a key"
        await board.power_cut()
        put_file(board, OURS)  # a technician has been here: what was stored is still to be had
        await one_wake(board)
        await board.close()
        assert [one.identity.seq for one in stored(board)] == [1, 257, 513]
        assert len({one.identity.epoch for one in stored(board)}) == 1
        assert set(world.adverts) == {1, 513}

    live(story)


def test_a_copied_flash_is_refused(tmp_path: Path) -> None:
    """Two chips with one key would use the same nonces."""

    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world)
        other = provisioning.pack(0, 0, b"\xa4\xcf\x12\x00\x00\x20", KEY, b"test")
        put_nvs(board, identity=other.hex())
        put_file(board, other)
        await one_wake(board)
        assert "another board's" in board.console()
        assert not world.adverts
        put_file(board, OURS)  # the right copy wins over the wrong one, and mends it
        await one_wake(board)
        await board.close()
        assert identities(board) == (OURS, OURS) and len(world.adverts) == 1

    live(story)


def test_bad_settings_are_reported_and_the_node_measures(tmp_path: Path) -> None:
    async def story() -> None:
        board = bin_board(tmp_path / "node", BareWorld(), pings=99, pongs=1)
        await one_wake(board)
        await board.close()
        assert "pings = 99: not 3 to 15; the default is 7" in board.console()
        assert "pongs: no such setting" in board.console()
        (only,) = stored(board)
        assert only.content["quality"] == "good"

    live(story)


def test_a_bin_that_stays_tilted_says_it_once_and_sleeps(tmp_path: Path) -> None:
    """A level that is there already must not wake the chip again and again."""

    async def story() -> None:
        world = BareWorld()
        board = bin_board(tmp_path / "node", world, wake_interval_ms=60000)
        await one_wake(board)
        world.levels[33] = 0
        board.pin_changed(33)
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        board.pin_changed(33)
        await asyncio.sleep(0.5)
        assert board.state == "sleeping"
        await board.close()
        assert [one.content["event"] for one in stored(board)] == ["boot", "tilt"]

    live(story)


class NotedSleeps(BareWorld):
    """Notes how long the board means to sleep each time."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps_ms: list[int] = []

    def slept(self, duration_ms: int) -> None:
        self.sleeps_ms.append(duration_ms)

    def rattle(self, board: VirtualBoard) -> None:
        """Close the tilt contact for a moment."""
        self.levels[33] = 0
        board.pin_changed(33)
        self.levels[33] = 1


def test_a_tilt_contact_that_rattles_wakes_once_a_minute(tmp_path: Path) -> None:
    async def story() -> None:
        world = NotedSleeps()
        board = bin_board(tmp_path / "node", world, wake_interval_ms=900000)
        await one_wake(board)
        world.rattle(board)
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        for _ in range(5):
            world.rattle(board)
            await asyncio.sleep(0.1)
            assert board.state == "sleeping"
        await board.close()
        assert [one.content["event"] for one in stored(board)] == ["boot", "tilt"]
        before_ms, after_ms = world.sleeps_ms
        assert before_ms > 800000 and after_ms <= 60000

    live(story)


def test_a_tilt_contact_is_armed_again_after_the_pause(tmp_path: Path) -> None:
    """A bin that falls during the pause says it at its end, one that falls later at once."""

    async def story() -> None:
        world = NotedSleeps()
        board = bin_board(tmp_path / "node", world, wake_interval_ms=2500)
        await one_wake(board)
        world.rattle(board)
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        world.levels[33] = 0
        board.pin_changed(33)
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        world.levels[33] = 1
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        world.rattle(board)
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        events = [one.content["event"] for one in stored(board)]
        assert events == ["boot", "tilt", "tilt", "periodic", "tilt"]

    live(story)


def test_service_makes_one_record_and_repeats_its_advert(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        world.levels[32] = 0
        board = bin_board(tmp_path / "node", world)
        await one_wake(board)
        for _ in range(2):
            await board.wait_for("running", timeout_s=_WAKE_S)
            await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        (only,) = stored(board)
        assert only.content["event"] == "service"
        assert only.content["quality"] == "not_measured"
        assert {number: len(contents) for number, contents in world.adverts.items()} == {1: 1}
        assert board.counts["deep_sleep"] >= 2

    live(story)


def test_a_gateway_that_proves_itself_ends_safe_mode(tmp_path: Path) -> None:
    async def story() -> None:
        world = BareWorld()
        made = bin_board(
            tmp_path / "node", world, crash_limit=2, safe_mode_wake_ms=1000, connect_window_ms=6000
        )
        air = Air(1)
        board = VirtualBoard(made.spec, world, interpreter=interpreter(), air=air)
        echo_us = world.echo_us
        world.echo_us = lambda pin: "no number"  # type: ignore[method-assign,assignment,return-value]
        await board.power_on()
        async with asyncio.timeout(_WAKE_S):
            while not world.adverts:
                await asyncio.sleep(0.02)
        world.echo_us = echo_us  # type: ignore[method-assign]
        await greet(await air.connect(ADDRESS, "gateway", 5.0))
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.wait_for("running", timeout_s=_WAKE_S)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        first, second = stored(board)[:2]
        assert (first.content["event"], first.content["quality"]) == ("crash", "not_measured")
        assert (second.content["event"], second.content["quality"]) == ("periodic", "good")

    live(story)


def test_a_stranger_does_not_close_the_door(tmp_path: Path) -> None:
    """After a peer that proves nothing the board advertises on, and hears the next one."""

    async def story() -> None:
        world = BareWorld()
        made = bin_board(tmp_path / "node", world, connect_window_ms=6000, wake_interval_ms=60000)
        air = Air(1)
        board = VirtualBoard(made.spec, world, interpreter=interpreter(), air=air)
        await board.power_on()
        stranger = await air.connect(ADDRESS, "stranger", 10.0)
        async with asyncio.timeout(5):
            while stranger.open:  # the node drops it: nothing was proved
                await asyncio.sleep(0.02)
        second = await air.connect(ADDRESS, "second", 5.0)
        node = await greet(second)
        assert node.node_id == NODE_ID and node.last_seq == 1
        await board.close()
        assert len(world.adverts[1]) == 1

    live(story)


def test_the_link_has_ended_before_the_radio_is_switched_off(tmp_path: Path) -> None:
    """NimBLE's shutdown can hang under a live connection; the stand-in does."""

    async def story() -> None:
        world = BareWorld()
        made = bin_board(tmp_path / "node", world, connect_window_ms=6000, wake_interval_ms=60000)
        air = Air(1)
        board = VirtualBoard(made.spec, world, interpreter=interpreter(), air=air)
        await board.power_on()
        central = await air.connect(ADDRESS, "gateway", 10.0)
        await asyncio.sleep(0.5)  # longer than the stand-in forgives
        await greet(central)
        await board.wait_for("sleeping", timeout_s=_WAKE_S)
        await board.close()
        assert not central.open
        assert world.boots == ["power_on"]
        assert "hangs" not in board.console()

    live(story)
