"""Target: what units on an RS-485 bus may answer, through the real pymodbus client.

Rule: pymodbus's own null modem stands for the wire; the bus goes on whatever comes, a command ends
in one result at most, and each number of the lamp's stream stays accounted for.

Each piece answers one request, by its first byte modulo 6: 0 raw bytes, 1 a PDU with unit and CRC,
2 a status block with the request's token (the piece overwrites its beginning), 3 records in a file
answer, 4 objects of a device identification, 5 nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import struct
from pathlib import Path
from typing import Any

from kerb_gateway.commands import Commands
from kerb_gateway.config import BusPart
from kerb_gateway.errors import LinkDown
from kerb_gateway.links.modbus import ModbusBus
from kerb_gateway.uplink.mqtt import Incoming
from kerb_wire import records, registers
from kerb_wire.crc import crc16_modbus
from pymodbus import ModbusException
from pymodbus.transport.transport import NULLMODEM_HOST, NullModem

from kerb_tools.fuzz import warp
from kerb_tools.fuzz.both.wire_targets import pieces
from kerb_tools.fuzz.gateway_bench import BUS, EPOCH, LAMP_ID, NODES, TOPICS, Bench, Benches, log
from kerb_tools.fuzz.target import Broken, Run, Target
from kerb_tools.fuzz.wire_seeds import as_pieces

_UNIT = 1
_ANSWER_S = 0.01
_STORY_S = 120.0
_FUNCTION_READ_WRITE = 0x17
_FUNCTION_FILE = 0x14
_IDENTITY = bytes((0x2B, 0x0E, 1, 0x83, 0, 0))
_ports = itertools.cycle(range(5000, 6000))

_VALUES = {name: 0 for name, _ in registers.STATUS} | {
    "map_version": registers.MAP_VERSION,
    "node_id": int(LAMP_ID, 16),
    "epoch": EPOCH,
    "last_seq": 3,
    "first_seq": 1,
}


def block(**values: int) -> bytes:
    """Return a status block with some values changed."""
    words = registers.pack(registers.STATUS, _VALUES | values)
    return struct.pack(f">{len(words)}H", *words)


class Unit:
    """Answers each request with the script's next piece."""

    def __init__(self, script: list[bytes]) -> None:
        self._script = list(script)
        self._transport: Any = None
        self.exhausted = asyncio.Event()

    def handle_new_connection(self) -> Unit:
        """Be the other end of the null modem."""
        return self

    def connection_made(self, transport: Any) -> None:
        """Keep the way to the client."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is left to answer."""
        self._transport = None

    def data_received(self, request: bytes) -> None:
        """Take a request; answer it after a while."""
        if not self._script:
            self.exhausted.set()
            return
        answer = self._answer(self._script.pop(0), request)
        if answer:
            asyncio.get_running_loop().call_later(_ANSWER_S, self._say, answer)

    def _say(self, answer: bytes) -> None:
        if self._transport is not None:
            # What pymodbus cannot decode it raises into the event loop, which notes it: the
            # request then ends by its timeout.
            with contextlib.suppress(ModbusException):
                self._transport.write(answer)

    def _answer(self, piece: bytes, request: bytes) -> bytes:
        kind, body = piece[0] % 6, piece[1:]
        if kind == 0:
            return body
        if kind == 2:
            token = request[-4:-2]
            data = token + body + block()[len(body) :]
            body = bytes([_FUNCTION_READ_WRITE, len(data) & 0xFF]) + data
        elif kind == 3:
            body = (
                bytes([_FUNCTION_FILE, (len(body) + 2) & 0xFF, (len(body) + 1) & 0xFF, 6]) + body
            )
        elif kind == 4:
            body = _IDENTITY + body
        elif kind == 5:
            return b""
        answer = bytes([_UNIT]) + body
        return answer + crc16_modbus(answer).to_bytes(2, "little")


async def _serve(bench: Bench, unit: Unit) -> None:
    """Run a bus, and a command on it, until the script is at its end."""
    port = next(_ports)
    listener = NullModem.set_listener(port, unit)  # type: ignore[arg-type]
    part = BusPart(
        name=BUS, port=Path(f"{NULLMODEM_HOST}:{port}"), poll_interval_s=1, timeout_ms=100,
        quiet_ms=20,
    )  # fmt: skip
    bus = ModbusBus(part, [NODES[1]], bench.ingest, log)
    commands = Commands(
        bench.store, bench.ledger, bench.ingest, bench.clock, TOPICS, NODES, {BUS: bus}, log,
        retry_s=1,
    )  # fmt: skip
    await commands.resume()
    payload = json.dumps({"command_id": "c", "level_pct": 40, "hold_s": 9, "ttl_s": 20}).encode()
    commands.take(Incoming(TOPICS.of(LAMP_ID, "cmd"), payload, False, 1, 1), lambda _: None)
    running = [asyncio.ensure_future(bus.run()), asyncio.ensure_future(commands.run())]
    end = asyncio.ensure_future(unit.exhausted.wait())
    try:
        done, _ = await asyncio.wait(
            [end, *running], timeout=_STORY_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            with contextlib.suppress(LinkDown):
                task.result()
    finally:
        for task in (end, *running):
            task.cancel()
        await asyncio.gather(end, *running, return_exceptions=True)
        listener.close()


async def _one_result(bench: Bench) -> None:
    rows = await bench.store.query("select payload from outbox where topic like '%/result'")
    if len(rows) > 1:
        raise Broken(f"a command has {len(rows)} results")


def _make() -> Run:
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it says every bad byte aloud
    benches = Benches()

    async def story(data: bytes) -> None:
        bench = await benches.open()
        try:
            await _serve(bench, Unit(list(pieces(data))))
            await bench.check()
            await _one_result(bench)
        finally:
            await bench.close()

    return lambda data: warp.run(lambda: story(data))


def _records(*seqs: int) -> bytes:
    return b"".join(records.pack_lamp(2, seq, seq * 10, 65, 2, 0, 5, 1, 1234, 42) for seq in seqs)


def _seeds() -> list[bytes]:
    status, identity = b"\x02", b"\x04\x02\x00\x09Kerbstone\x01\x02KS"
    file = b"\x03" + _records(1, 2, 3)
    lost = b"\x03" + records.pack_lost(1, 2, 0) + records.pack_lost(3, 3, 1) * 2
    done = b"\x02" + block(command_no=2, command_outcome=1, target_level_pct=40)
    late = b"\x01" + bytes([_FUNCTION_READ_WRITE, 4]) + bytes(4)
    return [
        as_pieces(status, identity, status, file, done, status),
        as_pieces(status, status, identity, lost, done),
        as_pieces(b"\x05", status, b"\x00" + bytes(20), file, late, status, late),
        as_pieces(status, file, identity, b"\x01\x94\x02", b"\x01\x97\x06", status),
        as_pieces(status, status, identity, b"\x03" + _records(1), b"\x03" + _records(1, 2), late),
    ]


TARGETS = (
    Target(
        "bus",
        "A unit's Modbus answers, through pymodbus",
        _make,
        _seeds,
        traced=("kerb_wire", "kerb_gateway", "pymodbus.framer", "pymodbus.pdu"),
    ),
)
