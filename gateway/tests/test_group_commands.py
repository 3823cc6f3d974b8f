"""Commands to a group: each has one result, from one gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from groups import Message
from kerb_gateway.commands import Commands
from kerb_gateway.groupcommands import GroupCommands
from kerb_gateway.leases import ELSEWHERE, HERE, NOBODY
from kerb_gateway.uplink.topics import Topics
from parts import LAMP_ID, NODE_ID, HandClock, Parts, log

BIN_COMMAND = f"kerb/v1/north/group/{NODE_ID}/cmd"
LAMP_COMMAND = f"kerb/v1/north/group/{LAMP_ID}/cmd"


@pytest.mark.parametrize(
    ("bus", "place", "mine"),
    [(True, NOBODY, True), (None, HERE, False), (False, HERE, True), (False, ELSEWHERE, False)],
)
def test_whose_a_command_is(bus: bool | None, place: str, mine: bool) -> None:
    counted: list[str] = []
    of_group = GroupCommands(lambda node: bus, lambda node: place, counted.append, log)
    assert of_group.is_mine(NODE_ID, Message(BIN_COMMAND), 100) is mine
    assert counted == ([] if mine else ["command of another gateway"])
    assert of_group.taken_up(1) == []


def test_a_command_waits_for_an_owner_who_knows_whether_its_life_is_over() -> None:
    counted: list[str] = []
    places = [NOBODY]
    of_group = GroupCommands(lambda node: False, lambda node: places[0], counted.append, log)
    kept, late = Message(BIN_COMMAND), Message(BIN_COMMAND)
    assert not of_group.is_mine(NODE_ID, kept, 100)
    assert not of_group.is_mine(NODE_ID, late, 50)
    assert of_group.taken_up(60) == []
    assert counted == []
    places[0] = HERE
    assert of_group.taken_up(61) == [(kept, False), (late, True)]
    assert of_group.taken_up(62) == []
    places[0] = NOBODY
    for _ in range(70):
        of_group.is_mine(NODE_ID, kept, 100)
    assert counted == ["command without an owner"] * 6  # a bound, and what is beyond it is counted
    places[0] = ELSEWHERE
    assert of_group.taken_up(63) == []


def test_a_command_to_the_group_has_one_result(tmp_path: Path) -> None:
    """Two gateways are given each command: one has the lamp's bus, the other owns the bin."""

    async def story() -> None:
        results: list[dict[str, Any]] = []
        for name, has_bus, place in (("gw1", True, ELSEWHERE), ("gw2", False, HERE)):
            parts = await Parts.open(tmp_path / f"{name}.sqlite")
            nodes = parts.nodes if has_bus else parts.nodes[:1]
            topics = Topics("north", name, grouped=True)
            commands = Commands(
                parts.store, parts.ledger, parts.ingest, parts.clock, topics, nodes, {}, log,
                retry_s=1, place=lambda node_id, place=place: place,
            )  # fmt: skip
            for topic in (LAMP_COMMAND, BIN_COMMAND):
                assert topics.is_command(topic)
                payload = json.dumps({"command_id": topic, "level_pct": 400}).encode()
                await commands._accept(Message(topic, payload))
            await parts.ingest.commit()
            results += [one | {"by": name} for one in await parts.payloads() if "result" in one]
            await parts.store.close()
        assert [(one["node"], one["by"], one["result"]) for one in results] == [
            (LAMP_ID, "gw1", "refused"),
            (NODE_ID, "gw2", "refused"),
        ]

    asyncio.run(story())


def test_what_nobody_owned_in_its_life_is_expired_by_the_next_owner(tmp_path: Path) -> None:
    """One result, from the gateway that comes to own the node; the other says nothing."""

    async def story() -> None:
        clock, places = HandClock(), {"gw1": NOBODY, "gw2": NOBODY}
        text = json.dumps({"command_id": "c", "level_pct": 4, "hold_s": 9, "ttl_s": 1}).encode()
        every = []
        for name in places:
            parts = await Parts.open(tmp_path / f"{name}.sqlite", clock)
            commands = Commands(
                parts.store, parts.ledger, parts.ingest, clock,
                Topics("north", name, grouped=True), parts.nodes, {}, log,
                retry_s=1, place=lambda node_id, name=name: places[name],
            )  # fmt: skip
            commands.take(Message(BIN_COMMAND, text), lambda _: None)
            every.append((parts, commands, asyncio.ensure_future(commands.run())))
        await asyncio.sleep(0.2)
        clock.boottime_s += 5
        await asyncio.sleep(0.2)
        places |= {"gw1": ELSEWHERE, "gw2": HERE}
        await asyncio.sleep(0.3)
        found = []
        for parts, _, task in every:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found.append([one["result"] for one in await parts.payloads() if "result" in one])
            await parts.store.close()
        assert found == [[], ["expired"]]

    asyncio.run(story())


def test_topics_of_a_gateway_that_is_alone_know_no_group() -> None:
    alone = Topics("north", "gw1")
    assert not alone.is_command(LAMP_COMMAND)
    assert alone.is_command(alone.of(LAMP_ID, "cmd"))
    assert not alone.is_command("kerb/v1/north/gw2/owned")
    assert Topics("north", "gw1", grouped=True).node_of(LAMP_COMMAND) == LAMP_ID
