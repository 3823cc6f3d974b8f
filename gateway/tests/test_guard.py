"""Forged adverts: rationed, counted, and no harm to the node whose address they bear."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path
from typing import Any

from kerb_gateway.config import BlePart
from kerb_gateway.guard import Guard
from kerb_gateway.ingest import NOT_VERIFIED
from kerb_gateway.model import Heard
from parts import EPOCH, NODE_ID, HandClock, Parts, heard
from test_backfill import NodeInMemory, backfill_of

_WINDOW_S = 3600
_LIMIT = 8


def guard() -> Guard:
    return Guard(limit=_LIMIT, window_s=_WINDOW_S)


def at(clock: HandClock, one: Heard) -> Heard:
    return dataclasses.replace(one, boottime_ms=clock.boottime_ms())


def forged(seq: int) -> Heard:
    return heard(seq, key=bytes(16))


def test_a_window_takes_so_many_tries_and_no_more() -> None:
    g = guard()
    tried = 0
    for second in range(10 * _WINDOW_S):
        if not g.closed("A", second * 1000):
            g.wrong("A", second * 1000)
            tried += 1
        assert not g.closed("B", second * 1000)
    assert tried == 10 * _LIMIT


def test_it_is_said_by_the_window_in_a_row() -> None:
    g = guard()
    said = []
    for second in [0] * 8 + [_WINDOW_S] * 8 + [2 * _WINDOW_S + 1] * 8 + [9 * _WINDOW_S] * 8:
        said.append(g.wrong("A", second * 1000))
    assert [number for number in said if number] == [1, 2, 3, 1]


def test_a_flood_takes_no_reading_from_the_node_it_imitates(tmp_path: Path) -> None:
    """Its adverts are not verified; sessions bring its numbers, and nothing forged is stored."""

    async def story() -> None:
        clock, said = HandClock(), []
        parts = await Parts.open(tmp_path / "g.sqlite", clock, guard=guard())
        parts.ingest._log = lambda event, **fields: said.append((event, fields))
        await parts.stream()
        node = NodeInMemory(tmp_path / "log", parts)
        backfill = backfill_of(parts)
        kinds: list[str] = []

        async def hear(one: Heard) -> None:
            outcome = parts.ingest.advert(at(clock, one))
            kinds.append(outcome.kind)
            backfill.consider(at(clock, one), outcome, node.converse)
            await asyncio.gather(*backfill._tasks)

        for seq in range(1, 41):
            node.store(seq)
            clock.boottime_s += 900
            for n in range(30):
                await hear(forged(1000 + n))
            await hear(heard(seq))
        await parts.ingest.commit()
        stored = await parts.column("select seq from readings order by seq")
        assert stored == list(range(1, 41))
        assert NOT_VERIFIED in kinds
        windows = 40 * 900 // _WINDOW_S + 1
        assert 0 < kinds.count("refused") <= windows * _LIMIT
        counted = dict(await parts.store.query("select name, value from counters"))
        assert counted["advert not verified: too many wrong MICs"] == kinds.count(NOT_VERIFIED)
        assert len([one for one in said if one[0] == "too many wrong MICs"]) <= 4
        clock.boottime_s += 2 * _WINDOW_S
        node.store(41)
        await hear(heard(41))
        assert kinds[-1] == "accepted"  # the flood is over
        await parts.store.close()

    asyncio.run(story())


def test_a_node_with_a_new_epoch_is_forgiven_its_wrong_mics(tmp_path: Path) -> None:
    async def story() -> None:
        clock = HandClock()
        parts = await Parts.open(tmp_path / "g.sqlite", clock, guard=guard())
        await parts.stream()
        kinds: list[Any] = []
        for seq in range(1, 12):
            kinds.append(parts.ingest.advert(at(clock, heard(seq, epoch=EPOCH + 1))).kind)
        assert kinds == ["refused"] * 8 + [NOT_VERIFIED] * 3
        assert NODE_ID in parts.ingest.suspect
        await parts.ingest.epoch(parts.nodes[0], EPOCH, 0)  # the same epoch proves nothing
        assert parts.ingest.advert(at(clock, heard(12))).kind == NOT_VERIFIED
        fresh = await parts.ingest.epoch(parts.nodes[0], EPOCH + 1, 12)
        one = at(clock, heard(13, epoch=EPOCH + 1))
        assert parts.ingest.advert(one).kind == "accepted"
        assert fresh.last_seq == 13
        await parts.store.close()

    asyncio.run(story())


def test_invented_addresses_leave_no_trace(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite", HandClock(), guard=guard())
        await parts.stream()
        for n in range(2000):
            address = ":".join(f"{octet:02X}" for octet in n.to_bytes(6, "big"))
            parts.ingest.advert(dataclasses.replace(forged(1), address=address))
        assert parts.ingest._guard.idle
        assert dict(parts.ledger.counters) == {"advert of an unknown node": 2000}
        await parts.store.close()

    asyncio.run(story())


def test_the_documented_years_are_those_of_the_defaults() -> None:
    part = BlePart()
    an_hour = part.wrong_mics * 3600 / part.wrong_mics_window_s
    years = 2**32 / an_hour / 8766
    text = (Path(__file__).parents[2] / "docs/threat-model.md").read_text()
    said = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+)\s+years", text)]
    restarts = [int(2**32 * every_s / part.wrong_mics / 3600 / 8766) for every_s in (2, 30)]
    assert said == [int(years), int(years / 200), *restarts]
