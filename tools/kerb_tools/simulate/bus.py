"""The RS-485 bus, in the place of pymodbus's client: the gateway's ModbusBus runs unmodified.

Rule: a request may be lost before or after the lamp has acted on it, an answer may be an older
one or cut short, and the port may go. Bytes, CRCs and framing are pymodbus's and are not here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from kerb_wire import registers
from pymodbus import ModbusException

from kerb_tools.simulate.lamp import Lamp

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_ANSWER_S = 0.04


@dataclass
class FilePart:
    """The data of one file record."""

    record_data: bytes


@dataclass
class Answer:
    """What pymodbus would return."""

    registers: list[int] = field(default_factory=list)
    records: list[FilePart] = field(default_factory=list)
    information: dict[int, bytes] = field(default_factory=dict)
    error: bool = False

    def isError(self) -> bool:
        """Tell whether the unit refused."""
        return self.error


class Bus:
    """The wire and its lamps."""

    def __init__(self, house: House, random: Random) -> None:
        self.house = house
        self.street = house.street
        self.random = random
        self.units: dict[int, Lamp] = {}
        self.client: BusClient | None = None

    def open(self, port: str, **settings: Any) -> BusClient:
        """Stand in for AsyncModbusSerialClient."""
        self.client = BusClient(self, settings["timeout"])
        return self.client

    def port_goes(self) -> None:
        """The USB adapter drops out."""
        if self.client is not None:
            self.client.connected = False


class BusClient:
    """One opened port."""

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self.connected = False
        self._bus = bus
        self._timeout_s = timeout_s
        self._older: dict[tuple[int, str], Answer] = {}

    async def connect(self) -> bool:
        """Open the port."""
        self.connected = True
        return True

    def close(self) -> None:
        """Close it."""
        self.connected = False

    async def readwrite_registers(
        self,
        *,
        device_id: int,
        read_address: int,
        read_count: int,
        write_address: int,
        values: list[int],
    ) -> Answer:
        """Function 0x17, as the register map wants it used."""
        lamp = self._bus.units[device_id]
        answer = await self._ask(
            device_id, "control", lambda: Answer(registers=lamp.control(values)[:read_count])
        )
        block = registers.unpack(registers.CONTROL, values)
        if block["new_command_no"] and answer.registers[0] == block["echo"]:
            status = registers.unpack(registers.STATUS, answer.registers[1:])
            self._bus.house.judge.commands.answered(block["new_command_no"], status)
        return answer

    async def read_file_record(self, *, device_id: int, records: list[Any]) -> Answer:
        """Function 0x14."""
        return await self._ask(device_id, "file", lambda: self._file(device_id, records[0]))

    def _file(self, unit: int, wanted: Any) -> Answer:
        offset = registers.file_offset(wanted.file_number, wanted.record_number)
        count = wanted.record_length // registers.RECORD_WORDS
        found = self._bus.units[unit].file(offset, count)
        if found is None:
            return Answer(error=True)
        return Answer(records=[FilePart(b"".join(found))])

    async def read_device_information(
        self, *, device_id: int, read_code: int, object_id: int
    ) -> Answer:
        """Function 0x2B/0x0E."""
        return await self._ask(device_id, "identity", lambda: Answer(information={0: b"Kerb"}))

    async def _ask(self, unit: int, what: str, act: Any) -> Answer:
        """Carry a request there and its answer back, with what may befall both."""
        street, random = self._bus.street, self._bus.random
        draw = 1.0 if street.calm else random.random()
        odds = street.odds
        if (
            draw < odds.unheard
            or self._bus.units[unit].away_until_s > street.timeline.now_s
            or not self.connected
        ):
            await self._silence()
        await asyncio.sleep(_ANSWER_S)
        answer: Answer = act()
        lamp = self._bus.units[unit]
        street.tailbook.answer(lamp.house, lamp.node_id, lamp.log)
        draw -= odds.unheard
        if draw < odds.unanswered:
            await self._silence()
        draw -= odds.unanswered
        older = self._older.get((unit, what))
        self._older[(unit, what)] = answer
        if draw < odds.late and older is not None:
            return older
        if draw - odds.late < odds.cut_short and answer.records:
            return Answer(records=[FilePart(answer.records[0].record_data[:-24])])
        return answer

    async def _silence(self) -> None:
        await asyncio.sleep(self._timeout_s)
        raise ModbusException("no answer")
