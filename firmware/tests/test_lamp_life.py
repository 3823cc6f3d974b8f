"""A lamp's life on a virtual board, asked by the real pymodbus over its bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from boards import NODE_ID, BareWorld, lamp_board
from kerb_node.light.perceptual import duty_u16
from kerb_sim.board.virtual import VirtualBoard
from kerb_wire import records, registers
from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.pdu.file_message import FileRecord

_START_S = 20.0
_UNIT = 1
KEPT_PCT = 30


class WatchedWorld(BareWorld):
    """Notes every duty in the order it was set, and where the boots lie in between."""

    def __init__(self) -> None:
        super().__init__()
        self.duties: list[int | str] = []

    def pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        super().pwm(pin, hz, duty_u16)
        self.duties.append(duty_u16)

    def booted(self, cause: str) -> None:
        super().booted(cause)
        self.duties.append(cause)


class Client:
    """A pymodbus client that speaks the register map."""

    def __init__(self, port: Path) -> None:
        self.modbus = AsyncModbusSerialClient(
            str(port), framer=FramerType.RTU, baudrate=115200, timeout=0.5, retries=0
        )

    async def awake(self) -> dict[str, int]:
        """Return the state as soon as the lamp answers."""
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    return await self.status()
                except ModbusException:
                    await asyncio.sleep(0.1)

    async def status(self) -> dict[str, int]:
        answer = await self.modbus.read_input_registers(
            0, count=registers.STATUS_WORDS, device_id=_UNIT
        )
        return dict(registers.unpack(registers.STATUS, answer.registers))

    async def write(self, token: int, **values: int) -> dict[str, int]:
        """Write the control block and its token; return the state that comes back with it."""
        table = {name: 0 for name, _ in registers.CONTROL} | values | {"echo": token}
        answer = await self.modbus.readwrite_registers(
            read_address=registers.ECHO_ADDRESS,
            read_count=1 + registers.STATUS_WORDS,
            write_address=registers.CONTROL_START,
            values=registers.pack(registers.CONTROL, table),
            device_id=_UNIT,
        )
        assert answer.registers[0] == token
        return dict(registers.unpack(registers.STATUS, answer.registers[1:]))

    async def log(self, first_seq: int, count: int) -> Any:
        file_number, record_number = registers.file_position(first_seq)
        wanted = FileRecord(
            file_number=file_number,
            record_number=record_number,
            record_length=count * records.RECORD_BYTES,
        )
        return await self.modbus.read_file_record(records=[wanted], device_id=_UNIT)


@asynccontextmanager
async def lamp(
    directory: Path,
) -> AsyncIterator[tuple[VirtualBoard, WatchedWorld, Client]]:
    world = WatchedWorld()
    bus, port, board = lamp_board(directory, world)
    bus.start()
    client = Client(port)
    try:
        assert await client.modbus.connect()
        yield board, world, client
    finally:
        client.modbus.close()
        await board.close()
        bus.close()


def test_every_word_of_the_map_over_pymodbus(tmp_path: Path) -> None:
    async def story() -> None:
        async with lamp(tmp_path / "node") as (board, _, client):
            await board.power_on()
            state = await client.awake()
            assert state["node_id"] == int.from_bytes(NODE_ID, "big")
            assert (state["level_pct"], state["command_no"]) == (70, 0)
            after = await client.write(
                0x4321, new_command_no=7, new_level_pct=KEPT_PCT, new_hold_s=60, new_life_s=9
            )
            assert (after["command_no"], after["command_outcome"]) == (7, 1)
            assert after["last_seq"] == state["last_seq"] + 1, "the record comes before the answer"
            answer = await client.log(after["last_seq"], 1)
            row = records.unpack(bytes(answer.records[0].record_data))
            assert (row.command_no, row.level_pct, records.lamp_outcome(row)) == (7, KEPT_PCT, 1)
            beyond = await client.log(after["last_seq"] + 1, 1)
            assert beyond.isError() and beyond.exception_code == 2
            nowhere = await client.modbus.read_input_registers(500, count=1, device_id=_UNIT)
            assert nowhere.isError() and nowhere.exception_code == 2
            identity = await client.modbus.read_device_information(
                read_code=3, object_id=0, device_id=_UNIT
            )
            texts = identity.information
            assert texts[0] == b"Kerbstone" and texts[1] == b"KS-LAMP"
            assert texts[registers.DEVICE_OBJECT_NODE_ID] == NODE_ID.hex().encode()

    asyncio.run(story())


def test_what_is_not_applied_says_so_and_changes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with lamp(tmp_path / "node") as (board, world, client):
            await board.power_on()
            await client.awake()
            asked = {"new_level_pct": KEPT_PCT, "new_hold_s": 60, "new_life_s": 9}
            cases = (
                ({"new_life_s": 0}, 2),
                ({"new_hold_s": 0}, 3),
                ({"new_hold_s": 604801}, 3),
                ({"new_level_pct": 101}, 3),
                ({"new_level_pct": 9}, 3),  # below min_level_pct, and not off
            )
            for number, (change, outcome) in enumerate(cases, start=1):
                state = await client.write(number, **asked | {"new_command_no": number} | change)
                assert (state["command_no"], state["command_outcome"]) == (number, outcome)
                assert state["target_level_pct"] == 70
                answer = await client.log(state["last_seq"], 1)
                row = records.unpack(bytes(answer.records[0].record_data))
                assert (row.command_no, row.level_pct) == (number, 70)
                assert records.lamp_outcome(row) == outcome
            assert set(world.duties[1:]) == {duty_u16(70)}

    asyncio.run(story())


def test_a_command_is_remembered_however_often_the_board_restarts(tmp_path: Path) -> None:
    """Each start skips a block of numbers: the command lies ever further behind."""

    async def story() -> None:
        async with lamp(tmp_path / "node") as (board, _, client):
            await board.power_on()
            await client.awake()
            asked = {"new_command_no": 7, "new_level_pct": KEPT_PCT, "new_hold_s": 60}
            await client.write(1, new_life_s=9, **asked)
            for _ in range(5):
                await board.power_cut()
                await board.power_on()
                state = await client.awake()
            assert (state["command_no"], state["command_outcome"]) == (7, 1)
            state = await client.write(2, new_life_s=9, **asked)
            assert state["target_level_pct"] == 70, "a repeated command was applied again"

    asyncio.run(story())


def test_the_light_comes_back_from_a_watchdog_without_a_blink(tmp_path: Path) -> None:
    async def story() -> None:
        async with lamp(tmp_path / "node") as (board, world, client):
            await board.power_on()
            await client.awake()
            await client.write(
                1, new_command_no=7, new_level_pct=KEPT_PCT, new_hold_s=60, new_life_s=9
            )
            async with asyncio.timeout(_START_S):
                while world.duties[-1] != duty_u16(KEPT_PCT):
                    await asyncio.sleep(0.05)
                board.freeze()
                while "watchdog" not in world.boots:
                    await asyncio.sleep(0.05)
            state = await client.awake()
            assert (state["level_pct"], state["reason"]) == (KEPT_PCT, 2)
            after = world.duties[world.duties.index("watchdog") + 1 :]
            # Once before the application is loaded, once by the application, and never dark.
            assert len(after) >= 2 and set(after) == {duty_u16(KEPT_PCT)}, after

    asyncio.run(story())
