"""The Modbus link over a real pty with the real pymodbus: late answers, and an epoch's end."""

from __future__ import annotations

import asyncio
import os
import tty
from pathlib import Path

import pytest
from kerb_gateway.config import BusPart
from kerb_gateway.errors import LinkError
from kerb_gateway.links.modbus import NO_COMMAND, ModbusBus
from kerb_wire import registers
from kerb_wire.crc import crc16_modbus
from parts import EPOCH, LAMP_ID, Parts, log

_REQUEST_BYTES = 13 + 2 * registers.CONTROL_WORDS
_IDENTITY_BYTES = 7
_IDENTITY = bytes((1, 0x2B, 0x0E, 1, 1, 0, 0, 1, 0, 4)) + b"Kerb"


class LateLamp:
    """Answers each request when the next one comes: what a slow unit looks like."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.path = Path(os.ttyname(slave))
        os.set_blocking(self.master, False)
        self._held = b""
        self._token: bytes | None = None
        self.punctual = False
        self.epoch = 0
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        self._held += os.read(self.master, 512)
        while self._held[1:2] == _IDENTITY[1:2] and len(self._held) >= _IDENTITY_BYTES:
            self._held = self._held[_IDENTITY_BYTES:]
            os.write(self.master, _framed(_IDENTITY))
        while len(self._held) >= _REQUEST_BYTES:
            request, self._held = self._held[:_REQUEST_BYTES], self._held[_REQUEST_BYTES:]
            before, self._token = self._token, request[-4:-2]
            token = self._token if self.punctual else before
            if token is not None:
                os.write(self.master, self._answer(token))

    def _answer(self, token: bytes) -> bytes:
        values = {name: 0 for name, _ in registers.STATUS}
        values |= {"node_id": int(LAMP_ID, 16), "epoch": self.epoch}
        words = registers.pack(registers.STATUS, values)
        data = token + b"".join(word.to_bytes(2, "big") for word in words)
        return _framed(bytes([1, 0x17, len(data)]) + data)


def _framed(body: bytes) -> bytes:
    return body + crc16_modbus(body).to_bytes(2, "little")


def _bus(lamp: LateLamp, parts: Parts) -> ModbusBus:
    part = BusPart(
        name="street", port=lamp.path, parity="N", poll_interval_s=3000, timeout_ms=150,
        quiet_ms=20,
    )  # fmt: skip
    return ModbusBus(part, [parts.nodes[1]], parts.ingest, log)


def test_a_late_answer_is_not_taken_for_the_next(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LateLamp()
        bus = _bus(lamp, parts)
        task = asyncio.ensure_future(bus.run())
        await asyncio.sleep(0.6)  # its first poll has gone without an answer
        with pytest.raises(LinkError, match="older request"):
            await bus.exchange(parts.nodes[1], NO_COMMAND)
        assert parts.ledger.counters["late answer"] == 1
        lamp.punctual = True
        assert (await bus.exchange(parts.nodes[1], NO_COMMAND))["node_id"] == int(LAMP_ID, 16)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(lamp.master)
        await parts.store.close()

    asyncio.run(story())


def test_what_is_missing_of_an_ended_epoch_is_declared(tmp_path: Path) -> None:
    """A lamp has lost its NVS while a gap was open: its file of records is of the new epoch."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.ingest.epoch(parts.nodes[1], EPOCH, 5)
        lamp = LateLamp()
        lamp.punctual, lamp.epoch = True, EPOCH + 1
        task = asyncio.ensure_future(_bus(lamp, parts).run())
        async with asyncio.timeout(10):
            while (LAMP_ID, EPOCH + 1) not in parts.ledger.streams:
                await asyncio.sleep(0.02)
        await parts.ingest.commit()
        losses = await parts.store.query("select first_seq, last_seq, reason from losses")
        assert losses == [(6, None, "tail unknown"), (1, 5, "tail unknown")]
        old = parts.ledger.streams[(LAMP_ID, EPOCH)]
        assert not old.gaps
        assert not old.unexplained()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(lamp.master)
        await parts.store.close()

    asyncio.run(story())
