"""Traps of pymodbus that others fell into: that they are there, and that we are not in them."""

from __future__ import annotations

import asyncio
import os
import tty
from pathlib import Path
from typing import Any

import pytest
from kerb_gateway.config import BusPart
from kerb_gateway.errors import LinkError
from kerb_gateway.links.modbus import NO_COMMAND, ModbusBus
from kerb_wire.crc import crc16_modbus
from parts import Parts, log
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.exceptions import ModbusIOException


class Unit:
    """A serial port on which the test is the other side."""

    def __init__(self, answers: list[bytes]) -> None:
        """answers: for each request what is sent then; the last one for all that follow."""
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.path = Path(os.ttyname(slave))
        os.set_blocking(self.master, False)
        self._answers = answers
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        os.read(self.master, 512)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer:
            os.write(self.master, answer)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)


def adu(*body: int) -> bytes:
    data = bytes(body)
    return data + crc16_modbus(data).to_bytes(2, "little")


def _bare(path: Path) -> Any:
    return AsyncModbusSerialClient(
        str(path), framer=FramerType.RTU, baudrate=19200, timeout=0.2, retries=0,
        reconnect_delay=0,
    )  # fmt: skip


def test_pymodbus_takes_a_late_answer_for_the_next_one() -> None:
    """The first request is answered when the second one comes, with what the first asked for."""

    async def story() -> None:
        unit = Unit([b"", adu(1, 3, 2, 0x11, 0x11)])
        client = _bare(unit.path)
        assert await client.connect()
        with pytest.raises(ModbusIOException):
            await client.read_holding_registers(1, count=1, device_id=1)
        second = await client.read_holding_registers(2, count=1, device_id=1)
        assert second.registers == [0x1111]  # register 1's value, given as register 2's
        client.close()
        unit.close()

    asyncio.run(story())


def test_pymodbus_takes_an_answer_of_another_function() -> None:
    async def story() -> None:
        unit = Unit([adu(1, 3, 2, 0x11, 0x11)])
        client = _bare(unit.path)
        assert await client.connect()
        answer = await client.read_device_information(read_code=1, object_id=0, device_id=1)
        assert not answer.isError()
        assert not hasattr(answer, "information")
        client.close()
        unit.close()

    asyncio.run(story())


def test_ours_refuses_an_answer_of_another_function(tmp_path: Path) -> None:
    """An older test, test_modbus_link.py, has the late answer of the same function."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        unit = Unit([adu(1, 3, 2, 0x11, 0x11)])
        part = BusPart(
            name="street", port=unit.path, parity="N", poll_interval_s=3000, timeout_ms=150,
            quiet_ms=20,
        )  # fmt: skip
        bus = ModbusBus(part, [parts.nodes[1]], parts.ingest, log)
        task = asyncio.ensure_future(bus.run())
        await asyncio.sleep(0.4)
        with pytest.raises(LinkError, match="function 3 answered readwrite_registers"):
            await bus.exchange(parts.nodes[1], NO_COMMAND)
        assert not task.done()  # the bus goes on
        assert parts.ledger.counters["late answer"] >= 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        unit.close()
        await parts.store.close()

    asyncio.run(story())
