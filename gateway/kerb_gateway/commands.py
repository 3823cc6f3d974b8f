"""Commands to lamps: parsed strictly, stored, carried, and ended in exactly one result.

Rule: the broker's message is acknowledged only when the command is stored; a command that was
sent is settled with the lamp's own word before it is called anything but applied; expiry is
judged on the clock that does not jump.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kerb_wire.errors import RemoteFault
from kerb_wire.words import OUTCOMES, REASONS

from kerb_gateway.clock import Clock
from kerb_gateway.commandmessage import (
    FADE_DEFAULT_MS,
    Malformed,
    Message,
    Unowned,
    life_ms,
    parse,
)
from kerb_gateway.errors import LinkError
from kerb_gateway.groupcommands import GroupCommands
from kerb_gateway.ingest import Ingest
from kerb_gateway.leases import HERE
from kerb_gateway.model import Node
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.restore import RESTORED_BOOT

_QUEUE = 256
_FIRST_NO_MAX = 2**31
_TICK_S = 0.05
_SETTLE_MIN_S = 30.0
_LIFE_MAX_S = 65535
_LAST_RESULT = OUTCOMES.index("refused")  # of what a lamp's registers say

Log = Callable[..., Any]


class Bus(Protocol):
    """The link to a lamp."""

    async def exchange(self, node: Node, command: dict[str, int]) -> dict[str, int]:
        """Carry a command and return the lamp's state."""


class TopicNames(Protocol):
    """How topics are read."""

    def node_of(self, topic: str) -> str:
        """Return the node of a command topic."""

    def for_group(self, topic: str) -> bool:
        """Tell whether the command goes to whichever gateway of the group has the node."""


@dataclass
class Command:
    """One stored command on its way to a lamp."""

    command_no: int
    command_id: str
    node: Node
    level_pct: int
    fade_ms: int
    hold_s: int
    expires_ms: int
    sent: bool = False
    next_try_ms: int = 0
    trying: bool = False
    restored: bool = False  # open in a restored backup: it may have had its result before


class Commands:
    """Takes messages from the uplink and brings each to its one result."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        ingest: Ingest,
        clock: Clock,
        topics: TopicNames,
        nodes: list[Node],
        buses: dict[str, Bus] | Any,
        log: Log,
        *,
        retry_s: float,
        place: Callable[[str], str] | None = None,
    ) -> None:
        """place: whose business a node without a bus is in the group; None: there is no group."""
        self._store = store
        self._of_group = GroupCommands(
            self._is_bus, place or (lambda node_id: HERE), ledger.count, log
        )
        self._ledger = ledger
        self._ingest = ingest
        self._clock = clock
        self._topics = topics
        self._nodes = {node.node_id: node for node in nodes}
        self._buses: dict[str, Bus] = buses
        self._log = log
        self._retry_ms = int(retry_s * 1000)
        self._queue: asyncio.Queue[tuple[Any, Callable[[Any], None], int]] = asyncio.Queue(_QUEUE)
        self._open: list[Command] = []
        self._next_no = 1
        self._tasks: set[asyncio.Task[None]] = set()

    async def resume(self) -> None:
        """Load what an earlier process left open; numbers go on where it stopped."""
        rows = await self._store.query("select coalesce(max(command_no), 0) from commands")
        # A new file starts anywhere: a lamp takes its last command's number for a repetition.
        self._next_no = rows[0][0] + 1 if rows[0][0] else 1 + secrets.randbelow(_FIRST_NO_MAX)
        floor = await self._store.query("select value from meta where key = 'command_floor'")
        if floor:  # restored: what was given out after the backup is not in this file
            self._next_no = max(self._next_no, int(floor[0][0]) + 1)
        for row in await self._store.query(
            "select command_no, command_id, level_pct, fade_ms, hold_s, boot_id, "
            "expires_boottime_ms, state, node_no, node_id, role "
            "from commands join nodes using (node_no) where state != 'done' order by command_no"
        ):
            # Another boot's clock says nothing about this one's: what is left of the life is
            # unknown, so it ends now; a lamp that may have got it still has its time to answer.
            same_boot = row[5] == self._clock.now().boot_id
            expires_ms = row[6] if same_boot else self._clock.boottime_ms()
            # A release before this one stored null for a fade that was given as null.
            fade_ms = FADE_DEFAULT_MS if row[3] is None else row[3]
            node = self._nodes.get(row[9]) or Node(row[8], row[9], row[10], b"")
            command = Command(row[0], row[1], node, row[2], fade_ms, row[4], expires_ms)
            command.sent = row[7] == "sent"
            command.restored = row[5] == RESTORED_BOOT
            self._open.append(command)
        self._end_removed()

    def _end_removed(self) -> None:
        """Give the commands of lamps that the configuration no longer has here their result.

        Nobody waits for the COMMIT: a gateway must also start on a full disk.
        """
        removed = [command for command in self._open if command.node.bus is None]
        for command in removed:
            result = "unreachable" if command.sent else "refused"
            self._end(command, result, detail="its lamp is no longer in the configuration")
        if removed:
            self._ingest.hurry()

    def take(self, message: Any, ack: Callable[[Any], None]) -> None:
        """Queue a message; when the queue is full the broker keeps it for us."""
        try:
            self._queue.put_nowait((message, ack, self._clock.boottime_ms()))
        except asyncio.QueueFull:
            self._ledger.count("command left with the broker")

    @property
    def _is_carrying(self) -> bool:
        """Tell whether anything waits for its time or its owner, or only for a message."""
        return bool(self._open or self._of_group)

    async def run(self) -> None:
        """Store what comes and carry what is open, for ever."""
        while True:
            # Not wait_for: in Python 3.11 it forgets a cancel that comes together with a message.
            try:
                async with asyncio.timeout(_TICK_S if self._is_carrying else None):
                    message, ack, came_ms = await self._queue.get()
                await self._accept(message, came_ms)
                ack(message)
            except TimeoutError:
                pass
            now_ms = self._clock.boottime_ms()
            for held, over in self._of_group.taken_up(now_ms):
                await self._take_in(self._topics.node_of(held.topic), held, now_ms, over=over)
            await self._carry()

    # --- taking ---

    async def _accept(self, message: Message, came_ms: int | None = None) -> None:
        """came_ms: its life begins there; storing the one before it may have taken hours.

        None: it comes now.
        """
        came_ms = self._clock.boottime_ms() if came_ms is None else came_ms
        node_id = self._topics.node_of(message.topic)
        if self._topics.for_group(message.topic):
            until_ms = came_ms + life_ms(message.payload)
            if not self._of_group.is_mine(node_id, message, until_ms):
                return
        await self._take_in(node_id, message, came_ms)

    async def _take_in(
        self, node_id: str, message: Message, came_ms: int, *, over: bool = False
    ) -> None:
        try:
            if message.retained:
                raise Malformed("retained: a command must not be repeated by the broker")
            fields = parse(message.payload)
            if await self._repeated(fields["command_id"]):
                self._ledger.count("command repeated")
                self._log("command repeated", node=node_id, command_id=fields["command_id"])
                return
            if over:
                raise Unowned("nobody owned its node while it lived", fields["command_id"])
            node = self._nodes.get(node_id)
            if node is None or node.bus is None:
                raise Malformed("no such lamp at this gateway", fields["command_id"])
        except Malformed as error:
            await self._refuse(node_id, error)
            return
        await self._store_command(node, fields, came_ms)

    def _is_bus(self, node_id: str) -> bool | None:
        node = self._nodes.get(node_id)
        return None if node is None else node.bus is not None

    async def _repeated(self, command_id: str) -> bool:
        rows = await self._store.query(
            "select 1 from commands where command_id = ? limit 1", [command_id]
        )
        return bool(rows)

    async def _refuse(self, node_id: str, error: Malformed) -> None:
        self._ledger.count("command malformed")
        self._log("command refused", node=node_id, command_id=error.command_id, why=str(error))
        if error.command_id is not None and await self._repeated(error.command_id):
            return  # it has, or will have, its one result
        if error.command_id is not None:
            # Kept under its id, so that a repetition of it is known as one.
            self._ledger.add(
                (
                    "insert into commands (command_no, command_id, state, result) "
                    "values (?,?,'done',?)",
                    [self._next_no, error.command_id, error.result],
                )
            )
            self._next_no += 1
        self._ledger.add_result(
            node_id,
            {
                "command_id": error.command_id,
                "command_no": None,
                "result": error.result,
                "detail": str(error),
            },
        )
        await self._ingest.commit()

    async def _store_command(self, node: Node, fields: dict[str, Any], came_ms: int) -> None:
        command = Command(
            self._next_no,
            fields["command_id"],
            node,
            fields["level_pct"],
            fields["fade_ms"],
            fields["hold_s"],
            came_ms + fields["ttl_s"] * 1000,
        )
        self._next_no += 1
        self._ledger.add(
            (
                "insert into commands values (?,?,?,?,?,?,?,?,'accepted',null)",
                [
                    command.command_no,
                    command.command_id,
                    node.node_no,
                    command.level_pct,
                    command.fade_ms,
                    command.hold_s,
                    self._clock.now().boot_id,
                    command.expires_ms,
                ],
            )
        )
        for older in [one for one in self._open if one.node is node and not one.sent]:
            self._end(older, "superseded", detail=f"by {command.command_id}")
        self._open.append(command)
        await self._ingest.commit()

    # --- carrying ---

    async def _carry(self) -> None:
        """Start a try for each lamp's oldest open command that is due."""
        now_ms = self._clock.boottime_ms()
        seen: set[str] = set()
        for command in list(self._open):
            if command.node.node_id in seen:
                continue
            seen.add(command.node.node_id)
            if not command.trying and now_ms >= command.next_try_ms:
                command.trying = True
                task = asyncio.ensure_future(self._try(command))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _try(self, command: Command) -> None:
        try:
            await self._try_once(command)
        finally:
            command.trying = False
            command.next_try_ms = self._clock.boottime_ms() + self._retry_ms

    async def _try_once(self, command: Command) -> None:
        if self._clock.boottime_ms() >= command.expires_ms and not command.sent:
            self._end(command, "expired", detail="its life ended before the lamp could be asked")
            await self._ingest.commit()
            return
        if not command.sent:
            # From here on a newer command waits for this one instead of superseding it.
            command.sent = True
            # Stored first: after a crash it must be known that the lamp may have got it.
            self._ledger.add(
                ("update commands set state = 'sent' where command_no = ?", [command.command_no])
            )
            await self._ingest.commit()  # may take long: a full disk
        left_s = (command.expires_ms - self._clock.boottime_ms()) // 1000
        try:
            status = await self._buses[command.node.bus or ""].exchange(
                command.node,
                {
                    "new_command_no": command.command_no,
                    "new_level_pct": command.level_pct,
                    "new_fade_ms": command.fade_ms,
                    "new_hold_s": command.hold_s,
                    "new_life_s": max(0, min(_LIFE_MAX_S, left_s)),
                },
            )
        except (LinkError, RemoteFault) as error:
            await self._unanswered(command, str(error))
            return
        if status["command_outcome"] > _LAST_RESULT:
            why = f"the lamp says outcome {status['command_outcome']}, which is no result"
            await self._unanswered(command, why)
        elif status["command_no"] == command.command_no and status["command_outcome"]:
            self._settle(command, status)
            await self._ingest.commit()

    async def _unanswered(self, command: Command, why: str) -> None:
        """Keep asking: a lamp that got the command without our hearing so must be heard yet."""
        settle_ms = int(_SETTLE_MIN_S * 1000)
        if self._clock.boottime_ms() < command.expires_ms + settle_ms:
            return
        self._end(command, "unreachable", detail=why)
        await self._ingest.commit()

    def _settle(self, command: Command, status: dict[str, int]) -> None:
        outcome = OUTCOMES[status["command_outcome"]]
        self._end(
            command,
            outcome,
            level_pct=status["target_level_pct"],
            reason=REASONS[status["reason"]] if status["reason"] < len(REASONS) else None,
        )

    def _end(self, command: Command, result: str, **more: Any) -> None:
        """Give a command its one result; row and message are committed together."""
        self._open.remove(command)
        if command.restored:
            more["restored"] = True
        self._ledger.add(
            (
                "update commands set state = 'done', result = ? where command_no = ?",
                [result, command.command_no],
            )
        )
        self._ledger.add_result(
            command.node.node_id,
            {"command_id": command.command_id, "command_no": command.command_no, "result": result}
            | more,
        )
        self._log(
            "command ended",
            node=command.node.node_id,
            command_id=command.command_id,
            result=result,
        )
