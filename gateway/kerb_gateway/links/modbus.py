"""An RS-485 bus through pymodbus: polls each lamp, reads its log, carries its commands.

Rule: one request at a time; an answer counts only with the token that its request carried; after
a timeout the bus is given time to fall silent, so that a late answer is never taken for the next
one. pymodbus's errors leave this file as LinkError (one unit) or LinkDown (the port).
"""

from __future__ import annotations

import asyncio
import itertools
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kerb_wire import records, registers
from kerb_wire.errors import RemoteFault
from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.pdu.file_message import FileRecord, ReadFileRecordResponse
from pymodbus.pdu.mei_message import ReadDeviceInformationResponse
from pymodbus.pdu.register_message import ReadWriteMultipleRegistersResponse

from kerb_gateway.config import BusPart
from kerb_gateway.errors import LinkDown, LinkError
from kerb_gateway.ingest import Ingest
from kerb_gateway.model import Node, Stream
from kerb_gateway.timekeeper import NodeClock

_READS_A_POLL = 16
_BACK_OFF_POLLS = 8  # a silent unit is asked at most this many poll intervals apart
_SILENT_AFTER = 3  # polls in a row without a good answer
_TICK_S = 0.02
_LOOK_S = 0.5  # so often at least whether the port is still there

# pymodbus takes any answer of the right unit; what it answers is seen by its kind.
_ANSWERS = {
    "read_device_information": ReadDeviceInformationResponse,
    "read_file_record": ReadFileRecordResponse,
    "readwrite_registers": ReadWriteMultipleRegistersResponse,
}

Log = Callable[..., Any]
NO_COMMAND = {
    "new_command_no": 0,
    "new_level_pct": 0,
    "new_fade_ms": 0,
    "new_hold_s": 0,
    "new_life_s": 0,
}


@dataclass
class _Unit:
    node: Node
    due: float = 0.0
    failures: int = 0
    stream: Stream | None = None
    fetched_seq: int = 0
    durable_at: int = 0  # of Ingest.commits: from then on fetched_seq may be acknowledged
    identified: bool = False
    complaint: str = ""  # the last one logged: the same one is not said again and again


class ModbusBus:
    """One bus and its lamps."""

    def __init__(self, part: BusPart, nodes: list[Node], ingest: Ingest, log: Log) -> None:
        self._part = part
        self._ingest = ingest
        self._log = log
        self._units = {node.node_id: _Unit(node) for node in nodes}
        self._tokens = itertools.cycle(range(1, 0x10000))
        self._client: AsyncModbusSerialClient | None = None
        self._lock = asyncio.Lock()
        # 3.5 characters of silence between frames (Modbus over Serial Line V1.02, 2.5.1.1), and
        # a little for the slower clock of a unit that measures it.
        self._gap_s = max(0.00175, 38.5 / part.baudrate) + 0.003

    async def run(self) -> None:
        """Poll for ever; LinkDown when the port cannot be opened or breaks."""
        client = AsyncModbusSerialClient(
            str(self._part.port),
            framer=FramerType.RTU,
            baudrate=self._part.baudrate,
            parity=self._part.parity,
            timeout=self._part.timeout_ms / 1000,
            retries=0,
            reconnect_delay=0,
        )
        try:
            if not await _opened(client):
                raise LinkDown(f"{self._part.port}: the serial port cannot be opened")
            self._client = client
            self._log("bus open", bus=self._part.name, port=str(self._part.port))
            while client.connected:
                await self._poll_due()
                await asyncio.sleep(self._until_due_s())
            raise LinkDown(f"{self._part.port}: the serial port has gone")
        finally:
            self._client = None
            client.close()

    def _until_due_s(self) -> float:
        """Return for how long nobody is to be polled, at most until the next look at the port."""
        now = asyncio.get_running_loop().time()
        due = min((unit.due for unit in self._units.values()), default=now + _LOOK_S)
        return max(_TICK_S, min(_LOOK_S, due - now))

    async def _poll_due(self) -> None:
        loop = asyncio.get_running_loop()
        for unit in self._units.values():
            if loop.time() < unit.due:
                continue
            try:
                await self._poll(unit)
                self._answered(unit)
            except (LinkError, RemoteFault) as error:
                self._unanswered(unit, str(error))
            slower = min(_BACK_OFF_POLLS, 2 ** min(unit.failures, 10)) if unit.failures else 1
            unit.due = loop.time() + self._part.poll_interval_s * slower

    def _answered(self, unit: _Unit) -> None:
        if unit.complaint:
            self._log("unit answers again", node=unit.node.node_id, unit=unit.node.unit)
        unit.failures, unit.complaint = 0, ""

    def _unanswered(self, unit: _Unit, why: str) -> None:
        """Count it; say so once it is more than a disturbance on the bus."""
        self._ingest.count("unit did not answer", unit.node.node_no)
        unit.failures += 1
        if unit.failures >= _SILENT_AFTER and why != unit.complaint:
            unit.complaint = why
            self._log("unit silent", node=unit.node.node_id, unit=unit.node.unit, why=why)

    async def _poll(self, unit: _Unit) -> None:
        """Read the state, then the log's new records; acknowledge what is committed by now."""
        asked_ms = self._ingest.time.boottime_ms()
        status = await self.exchange(unit.node, NO_COMMAND)
        answered_ms = self._ingest.time.boottime_ms()
        if not unit.identified:
            await self._identify(unit)
        if not status["epoch"]:
            return
        stream = await self._ingest.epoch(unit.node, status["epoch"], status["last_seq"])
        if unit.stream is not stream:  # another epoch: what was fetched of the old one ends here
            unit.stream, unit.fetched_seq = stream, 0
            self._ingest.give_up_ended(stream)  # a file record is of the present epoch
        clock = NodeClock(status["boot_no"], status["uptime_s"], status["last_seq"])
        self._ingest.time.contact(stream, clock, asked_ms, answered_ms)
        for _ in range(_READS_A_POLL):
            if not stream.gaps:
                break
            await self._fetch(unit.node, stream)
        if stream.accounted_seq() != unit.fetched_seq:
            unit.fetched_seq = stream.accounted_seq()
            unit.durable_at = self._ingest.durable_at

    async def _identify(self, unit: _Unit) -> None:
        answer = await self._request(
            unit.node, "read_device_information", read_code=1, object_id=0
        )
        texts = []
        for value in answer.information.values():  # a list where an object came more than once
            for one in value if isinstance(value, list) else [value]:
                texts.append(bytes(one).decode("ascii", "replace"))
        unit.identified = True
        self._log(
            "unit identified",
            node=unit.node.node_id,
            unit=unit.node.unit,
            identity=" ".join(texts),
        )

    async def _fetch(self, node: Node, stream: Stream) -> None:
        """Read one run of records of the oldest gap and hand them to ingest.

        A file record does not name its epoch, and the state that did may be hours old by now (a
        full disk holds up what a new epoch has to store): it counts once the state behind it
        names the same one.
        """
        gap = min(stream.gaps, key=lambda one: one.first_seq)
        count = registers.file_span(gap.first_seq, gap.last_seq)
        file_number, record_number = registers.file_position(gap.first_seq)
        answer = await self._request(
            node,
            "read_file_record",
            records=[
                FileRecord(
                    file_number=file_number,
                    record_number=record_number,
                    record_length=count * records.RECORD_BYTES,  # in bytes; it sends words
                )
            ],
        )
        data = b"".join(record.record_data for record in answer.records)
        if len(data) != count * records.RECORD_BYTES:
            raise LinkError(f"{len(data)} bytes of log instead of {count} records")
        packed = [
            data[at : at + records.RECORD_BYTES]
            for at in range(0, len(data), records.RECORD_BYTES)
        ]
        wanted = _in_order(packed, gap.first_seq)
        epoch = (await self.exchange(node, NO_COMMAND))["epoch"]
        if epoch != stream.epoch:
            self._ingest.count("epoch ended while its log was read", node.node_no)
            raise LinkError(f"epoch {epoch} instead of {stream.epoch}: its log has begun anew")
        for one in wanted:
            self._ingest.record(stream, one, via="modbus", auth="none")
        if self._has_event(wanted):
            self._ingest.hurry()

    @staticmethod
    def _has_event(packed: Sequence[bytes]) -> bool:
        return any(one[1] == records.LAMP and one[15] & 0x0F for one in packed)

    def _ack(self, unit: _Unit) -> dict[str, int]:
        """Return the acknowledgement registers: only what a COMMIT holds."""
        if unit.stream is None or self._ingest.commits < unit.durable_at:
            return {"ack_epoch": 0, "ack_seq": 0}
        return {"ack_epoch": unit.stream.epoch, "ack_seq": unit.fetched_seq}

    async def exchange(self, node: Node, command: dict[str, int]) -> dict[str, int]:
        """Write the control block (a command or none) and return the state that came back.

        LinkError when the unit does not answer, or answers an older request.
        """
        unit = self._units[node.node_id]
        token = next(self._tokens)
        control = registers.pack(registers.CONTROL, self._ack(unit) | command | {"echo": token})
        answer = await self._request(
            node,
            "readwrite_registers",
            read_address=registers.ECHO_ADDRESS,
            read_count=1 + registers.STATUS_WORDS,
            write_address=registers.CONTROL_START,
            values=control,
        )
        if len(answer.registers) != 1 + registers.STATUS_WORDS:
            raise LinkError(f"{len(answer.registers)} registers came back")
        if answer.registers[0] != token:
            self._ingest.count("late answer", node.node_no)
            await self._fall_silent()
            raise LinkError("an answer to an older request")
        status: dict[str, int] = registers.unpack(registers.STATUS, answer.registers[1:])
        if status["node_id"] != int(node.node_id, 16):
            raise LinkError(f"unit {node.unit} is {status['node_id']:012x}, not {node.node_id}")
        return status

    async def _request(self, node: Node, method: str, **arguments: Any) -> Any:
        client = self._client
        if client is None:
            raise LinkError("the bus is not open")
        async with self._lock:
            await asyncio.sleep(self._gap_s)
            try:
                answer = await getattr(client, method)(device_id=node.unit, **arguments)
            except (ModbusIOException, TimeoutError) as error:
                await self._fall_silent()
                waited = f"within {self._part.timeout_ms} ms"
                raise LinkError(f"unit {node.unit}: no whole answer {waited}") from error
            except (ModbusException, OSError) as error:
                await self._fall_silent()
                raise LinkError(f"unit {node.unit}: {error}") from error
        if answer.isError():
            raise LinkError(f"unit {node.unit} refuses {method}: {answer}")
        if not isinstance(answer, _ANSWERS[method]):
            self._ingest.count("late answer", node.node_no)
            await self._fall_silent()
            raise LinkError(f"function {answer.function_code} answered {method}")
        return answer

    async def _fall_silent(self) -> None:
        """Wait until a late answer has passed by; pymodbus throws it away when it sends again."""
        await asyncio.sleep(self._part.quiet_ms / 1000)


def _in_order(packed: Sequence[bytes], first_seq: int) -> list[bytes]:
    """Return the records from `first_seq` on, a lost run once; LinkError at any other number."""
    wanted: list[bytes] = []
    want = first_seq
    for one in packed:
        if want >= first_seq + len(packed):
            break  # a lost run is repeated to fill the answer
        row = records.unpack(one)
        if row.seq != want:
            raise LinkError(f"record {row.seq} instead of {want}: not this request's answer")
        want = row.last_seq + 1 if row.kind == records.LOST else want + 1
        wanted.append(one)
    return wanted


async def _opened(client: AsyncModbusSerialClient) -> bool:
    """Open the port; what the serial driver refuses is a port that cannot be opened."""
    try:
        return bool(await client.connect())
    except (termios.error, OSError, ValueError):
        return False
