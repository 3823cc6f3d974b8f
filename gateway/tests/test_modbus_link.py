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
from kerb_wire import records, registers
from kerb_wire.crc import crc16_modbus
from parts import EPOCH, LAMP_ID, Parts, log

_REQUEST_BYTES = 13 + 2 * registers.CONTROL_WORDS
_IDENTITY_BYTES = 7
_FILE_BYTES = 12
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
        self.last_seq = 0
        self.next_epoch = 0  # begun when its log is asked for: its NVS was lost that moment
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        self._held += os.read(self.master, 512)
        while self._held[1:2] == _IDENTITY[1:2] and len(self._held) >= _IDENTITY_BYTES:
            self._held = self._held[_IDENTITY_BYTES:]
            os.write(self.master, _framed(_IDENTITY))
        while self._held[1:2] == b"\x14" and len(self._held) >= _FILE_BYTES:
            request, self._held = self._held[:_FILE_BYTES], self._held[_FILE_BYTES:]
            self.epoch, self.next_epoch = self.next_epoch or self.epoch, 0
            os.write(self.master, self._log(request))
        while self._held[1:2] == b"\x17" and len(self._held) >= _REQUEST_BYTES:
            request, self._held = self._held[:_REQUEST_BYTES], self._held[_REQUEST_BYTES:]
            before, self._token = self._token, request[-4:-2]
            token = self._token if self.punctual else before
            if token is not None:
                os.write(self.master, self._answer(token))

    def _answer(self, token: bytes) -> bytes:
        values = {name: 0 for name, _ in registers.STATUS}
        values |= {"node_id": int(LAMP_ID, 16), "epoch": self.epoch, "last_seq": self.last_seq}
        words = registers.pack(registers.STATUS, values)
        data = token + b"".join(word.to_bytes(2, "big") for word in words)
        return _framed(bytes([1, 0x17, len(data)]) + data)

    def _log(self, request: bytes) -> bytes:
        """Answer a read of the log; how long each lamp burnt tells the epochs apart."""
        number, place, words = (int.from_bytes(request[at : at + 2], "big") for at in (4, 6, 8))
        first_seq = registers.file_offset(number, place)
        data = b"".join(
            records.pack_lamp(1, seq, 60 * seq, 100, 1, 0, 0, 0, self.epoch - EPOCH, 0)
            for seq in range(first_seq, first_seq + words // registers.RECORD_WORDS)
        )
        return _framed(bytes([1, 0x14, len(data) + 2, len(data) + 1, 6]) + data)


def _framed(body: bytes) -> bytes:
    return body + crc16_modbus(body).to_bytes(2, "little")


def _bus(lamp: LateLamp, parts: Parts, poll_interval_s: float = 3000) -> ModbusBus:
    part = BusPart(
        name="street", port=lamp.path, parity="N", poll_interval_s=poll_interval_s,
        timeout_ms=150, quiet_ms=20,
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


def test_a_log_that_began_anew_behind_the_state_is_not_the_old_epoch_s(tmp_path: Path) -> None:
    """The state named an epoch; before its log came, the lamp had another one."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LateLamp()
        lamp.punctual, lamp.last_seq = True, 3
        lamp.epoch, lamp.next_epoch = EPOCH, EPOCH + 1
        task = asyncio.ensure_future(_bus(lamp, parts, 0.1).run())
        async with asyncio.timeout(10):
            while not (new := parts.ledger.streams.get((LAMP_ID, EPOCH + 1))) or new.gaps:
                await asyncio.sleep(0.02)
        await parts.ingest.commit()
        rows = await parts.store.query(
            "select epoch, seq, burn_min from readings join streams using (stream_no) order by seq"
        )
        assert rows == [(EPOCH + 1, seq, 1) for seq in (1, 2, 3)]
        assert parts.ledger.counters["epoch ended while its log was read"] == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(lamp.master)
        await parts.store.close()

    asyncio.run(story())
