"""Commands: strict parsing, one result each, no number applied twice, expiry, restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kerb_gateway.commandmessage import Malformed, parse
from kerb_gateway.commands import Commands
from kerb_gateway.errors import LinkError
from kerb_gateway.model import Node
from kerb_gateway.store.restore import restore
from kerb_wire import registers
from kerb_wire.words import OUTCOMES
from parts import KEY, LAMP_ID, TOPICS, HandClock, Parts, log

APPLIED, EXPIRED = 1, 2


@dataclass
class Message:
    """What the uplink hands over."""

    payload: bytes
    topic: str = TOPICS.of(LAMP_ID, "cmd")
    retained: bool = False


class LampInMemory:
    """A lamp that keeps the rule of its firmware: a number is acted on once."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.status = {"command_no": 0, "command_outcome": 0, "target_level_pct": 0, "reason": 2}
        self.deaf = False
        self.mute = False
        self.missed = 0

    async def exchange(self, node: Node, command: dict[str, int]) -> dict[str, int]:
        if self.deaf:
            self.missed += 1
            raise LinkError("no answer")
        number = command["new_command_no"]
        if number != self.status["command_no"]:
            outcome = APPLIED if command["new_life_s"] else EXPIRED
            if outcome == APPLIED:
                self.applied.append(number)
            self.status = self.status | {
                "command_no": number,
                "command_outcome": outcome,
                "target_level_pct": command["new_level_pct"],
            }
        if self.mute:
            raise LinkError("the answer was lost")
        return self.status


def payload(command_id: str = "one", **changes: Any) -> bytes:
    table = {"command_id": command_id, "level_pct": 40, "hold_s": 60, "ttl_s": 30} | changes
    return json.dumps({k: v for k, v in table.items() if v is not None}).encode()


def commands_of(parts: Parts, lamp: LampInMemory) -> Commands:
    return Commands(
        parts.store,
        parts.ledger,
        parts.ingest,
        parts.clock,
        TOPICS,
        parts.nodes,
        {"street": lamp},
        log,
        retry_s=0.05,
    )


async def until(parts: Parts, commands: Commands, ready: Callable[[list[Any]], bool]) -> list[Any]:
    """Run the commands until the results say so (at most some seconds)."""
    task = asyncio.ensure_future(commands.run())
    try:
        for _ in range(200):
            results = [p for p in await parts.payloads() if "result" in p]
            if ready(results):
                return results
            await asyncio.sleep(0.02)
        raise AssertionError(f"not reached: {results}")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"not json", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"command_id": "a", "command_id": "b"}', "twice"),
        (payload(command_id=""), "command_id"),
        (payload(level_pct=101), "level_pct = 101"),
        (payload(level_pct=True), "level_pct = True"),
        (payload(level_pct=None), "level_pct = None"),
        (payload(hold_s=0), "hold_s = 0"),
        (payload(brightness=3), "brightness: no such field"),
        (b"x" * 5000, "at most 4096"),
        (b"[" * 4000, "not JSON"),
    ],
)
def test_malformed(text: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse(text)


def test_applied_repeated_and_malformed(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        acked: list[Any] = []
        for text in (payload("one"), payload("one"), payload("bad", level_pct=500)):
            commands.take(Message(text), acked.append)
        commands.take(Message(payload("kept"), retained=True), acked.append)
        results = await until(parts, commands, lambda results: len(results) >= 3)
        await asyncio.sleep(0.2)
        assert lamp.applied == [1]
        assert {r["command_id"]: r["result"] for r in results} == {
            "one": "applied", "bad": "refused", None: "refused"
        }  # fmt: skip
        assert len(acked) == 4
        await parts.store.close()

    asyncio.run(story())


def test_a_newer_command_supersedes_one_that_never_left(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        for command_id in ("one", "two"):
            await commands._accept(Message(payload(command_id)))
        results = await until(parts, commands, lambda results: len(results) >= 2)
        assert [r["result"] for r in results] == ["superseded", "applied"]
        assert lamp.applied == [2]
        await parts.store.close()

    asyncio.run(story())


def test_expired_before_it_was_sent(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        await commands._accept(Message(payload("late", ttl_s=1)))
        await asyncio.sleep(1.05)
        (result,) = await until(parts, commands, lambda results: len(results) >= 1)
        assert result["result"] == "expired"
        assert lamp.applied == []
        await parts.store.close()

    asyncio.run(story())


def test_a_command_does_not_live_longer_because_it_waited(tmp_path: Path) -> None:
    """The one before it took its time to be stored: the disk was full."""

    async def story() -> None:
        clock = HandClock()
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        commands.take(Message(payload(ttl_s=30)), lambda message: None)
        clock.boottime_s += 40.0
        results = await until(parts, commands, lambda results: len(results) == 1)
        assert results[0]["result"] == "expired"
        assert lamp.applied == []
        await parts.store.close()

    asyncio.run(story())


def test_a_lost_answer_is_settled_by_the_lamps_own_word(tmp_path: Path) -> None:
    """Sent, applied, the answer lost, the gateway killed: still applied once, one result."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        lamp = LampInMemory()
        lamp.mute = True
        commands = commands_of(parts, lamp)
        await commands._accept(Message(payload("one")))
        await commands._carry()
        await asyncio.gather(*commands._tasks)
        assert lamp.applied == [1]
        await parts.store.close()
        again = await Parts.open(path)
        lamp.mute = False
        commands = commands_of(again, lamp)
        await commands.resume()
        (result,) = await until(again, commands, lambda results: len(results) >= 1)
        assert result["result"] == "applied"
        assert lamp.applied == [1]
        await commands._accept(Message(payload("two")))
        assert await again.column("select max(command_no) from commands") == [2]
        await again.store.close()

    asyncio.run(story())


@pytest.mark.parametrize("arrived", [True, False])
def test_what_was_open_in_a_restored_backup_is_settled_and_never_applied(
    tmp_path: Path, arrived: bool
) -> None:
    """The lamp may have got it after the backup: it is asked, with no life left to the command."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        await commands._accept(Message(payload("one")))
        await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
        if arrived:
            await commands._carry()
            await asyncio.gather(*commands._tasks)
        await parts.store.close()
        path.write_bytes(b"rubbish")  # it can say nothing of what became of the command
        restore(path, tmp_path / "copy", {})
        again = await Parts.open(path)
        commands = commands_of(again, lamp)
        await commands.resume()
        (result,) = await until(again, commands, lambda results: len(results) >= 1)
        assert result["result"] == ("applied" if arrived else "expired")
        assert result["restored"] is True
        assert lamp.applied == [1] * arrived
        await commands._accept(Message(payload("two")))
        (number,) = await again.column("select max(command_no) from commands")
        assert number > 65536
        await again.store.close()

    asyncio.run(story())


def test_a_restore_forgets_no_command_of_the_database_that_goes(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        await commands._accept(Message(payload("one")))
        await parts.store.copy_to(tmp_path / "copy", lambda *_: None)
        await until(parts, commands, lambda results: len(results) >= 1)
        lamp.deaf = True
        await commands._accept(Message(payload("two")))
        await parts.store.close()
        restore(path, tmp_path / "copy", {})
        again = await Parts.open(path)
        lamp.deaf = False
        commands = commands_of(again, lamp)
        await commands.resume()
        await commands._accept(Message(payload("one")))  # repeated: it has had its result
        (result,) = await until(again, commands, lambda results: len(results) >= 1)
        assert (result["command_id"], result["result"]) == ("two", "expired")
        assert lamp.applied == [1]
        await again.store.close()

    asyncio.run(story())


def test_what_another_boot_sent_is_asked_for_until_the_lamp_answers(tmp_path: Path) -> None:
    async def story() -> None:
        clock = HandClock(5000)
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        row = [7, "old", 2, 40, 1000, 60, "another boot", 99_000]
        insert = "insert into commands values (?,?,?,?,?,?,?,?,'sent',null)"
        await parts.store.write([(insert, row)])
        lamp = LampInMemory()
        lamp.status |= {"command_no": 7, "command_outcome": APPLIED}
        lamp.deaf = True
        commands = commands_of(parts, lamp)
        await commands.resume()

        def ready(results: list[Any]) -> bool:
            if lamp.missed and lamp.deaf:
                clock.boottime_s += 29
                lamp.deaf = False
            return bool(results)

        (result,) = await until(parts, commands, ready)
        assert result["result"] == "applied"
        await parts.store.close()

    asyncio.run(story())


def test_what_is_no_result_does_not_become_one(tmp_path: Path) -> None:
    """A lamp that says `repeated` in its registers: the command ends as if it had said nothing."""

    async def story() -> None:
        clock = HandClock()
        parts = await Parts.open(tmp_path / "g.sqlite", clock)
        lamp = OddLamp()
        commands = commands_of(parts, lamp)
        await commands._accept(Message(payload("one")))

        def ready(results: list[Any]) -> bool:
            clock.boottime_s += 1
            return bool(results)

        (result,) = await until(parts, commands, ready)
        assert result["result"] == "unreachable"
        assert "outcome 4" in result["detail"]
        await parts.store.close()

    asyncio.run(story())


class OddLamp(LampInMemory):
    """Answers each command with an outcome that only sessions know."""

    async def exchange(self, node: Node, command: dict[str, int]) -> dict[str, int]:
        status = await super().exchange(node, command)
        return status | {"command_outcome": OUTCOMES.index("repeated")}


@pytest.mark.parametrize("lamps", [[], [Node(2, LAMP_ID, "lamp", KEY)]])
def test_commands_of_a_lamp_that_was_taken_away_have_their_result(
    tmp_path: Path, lamps: list[Node]
) -> None:
    """Gone from the configuration, or on no bus any more: what was open ends at the start."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LampInMemory()
        lamp.deaf = True
        commands = commands_of(parts, lamp)
        await commands.resume()
        await commands._accept(Message(payload("sent")))
        await until(parts, commands, lambda _: lamp.missed > 0)
        await commands._accept(Message(payload("never sent")))
        again = await parts.again()
        again.nodes[1:] = lamps
        await commands_of(again, lamp).resume()
        await again.ingest.commit()
        results = [one for one in await again.payloads() if "result" in one]
        assert [(one["command_id"], one["result"], one["node"]) for one in results] == [
            ("sent", "unreachable", LAMP_ID),
            ("never sent", "refused", LAMP_ID),
        ]
        await commands_of(again, lamp).resume()
        assert await again.column("select count(*) from commands where state != 'done'") == [0]
        assert len([one for one in await again.payloads() if "result" in one]) == 2
        await again.store.close()

    asyncio.run(story())


def test_what_is_about_to_be_sent_is_not_superseded(tmp_path: Path) -> None:
    """A newer command comes while the older one's commit is awaited: both are carried out."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        lamp = LampInMemory()
        commands = commands_of(parts, lamp)
        await commands.resume()
        await commands._accept(Message(payload("older")))
        async with parts.ingest._lock:  # a slow disk: the next commit has to wait
            await commands._carry()
            newer = asyncio.ensure_future(commands._accept(Message(payload("newer"))))
            await asyncio.sleep(0.05)
        await newer
        results = await until(parts, commands, lambda found: len(found) == 2)
        assert [one["result"] for one in results] == ["applied", "applied"]
        assert [one["command_id"] for one in results] == ["older", "newer"]
        await parts.store.close()

    asyncio.run(story())


def test_a_fade_that_an_old_release_stored_as_null_is_the_usual_one(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        now = parts.clock.now()
        row = [7, "old", 2, 40, None, 60, now.boot_id, now.boottime_ms + 60_000]
        insert = "insert into commands values (?,?,?,?,?,?,?,?,'accepted',null)"
        await parts.store.write([(insert, row)])
        lamp = FadingLamp()
        commands = commands_of(parts, lamp)
        await commands.resume()
        (result,) = await until(parts, commands, lambda results: len(results) == 1)
        assert (result["command_id"], result["result"]) == ("old", "applied")
        assert lamp.fades == [1000]
        await parts.store.close()

    asyncio.run(story())


class FadingLamp(LampInMemory):
    """Takes commands by the register map, as the bus carries them."""

    def __init__(self) -> None:
        super().__init__()
        self.fades: list[int] = []

    async def exchange(self, node: Node, command: dict[str, int]) -> dict[str, int]:
        values = {name: 0 for name, _ in registers.CONTROL} | command
        registers.pack(registers.CONTROL, values)
        self.fades.append(command["new_fade_ms"])
        return await super().exchange(node, command)
