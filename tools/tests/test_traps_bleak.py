"""Traps of bleak that others fell into, with the real bleak at the emulated org.bluez."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from bleak.exc import BleakError
from kerb_gateway.clock import SystemClock
from kerb_gateway.links.ble import BleLink
from kerb_sim.air.medium import Advert
from kerb_wire import bthome
from parts import Parts, heard, log
from test_air import Story, World, advert, scanning, tell  # noqa: F401  tell is a fixture

Tell = Callable[[Story], None]


def test_bleak_does_not_notice_that_bluetoothd_died(tell: Tell) -> None:  # noqa: F811
    """No error, no end, no advert: which is why the link watches for silence."""

    async def story(world: World) -> None:
        with contextlib.suppress(BleakError):  # it cannot be stopped any more, either
            async with scanning("passive") as ear:
                world.say(advert(1))
                await asyncio.sleep(0.1)
                await world.bluez.stop()
                await asyncio.sleep(0.3)
                await world.bluez.start()
                world.say(advert(2))
                await asyncio.sleep(0.3)
                assert ear.heard == [b"\x00\x01"]
        assert ear.heard == [b"\x00\x01"]

    tell(story)


def _on_air(seq: int, rssi: int) -> Advert:
    one = heard(seq)
    return Advert(one.address, bthome.advertising_data(one.service_data), rssi, True)


def test_an_old_advert_behind_a_property_change_is_a_duplicate(
    tell: Tell,  # noqa: F811
    tmp_path: Path,
) -> None:
    """A louder repetition makes bleak report bytes that are known: counted, and stored once."""

    async def story(world: World) -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.stream()
        link = BleLink("hci0", "passive", SystemClock(), log, kernel="6.12.1")
        task = asyncio.ensure_future(link.scan())
        await asyncio.sleep(0.3)
        for rssi in (-80, -70, -60):
            world.say(_on_air(1, rssi))
            await asyncio.sleep(0.05)
        world.say(_on_air(2, -60))
        kinds = []
        while not kinds or kinds[-1] != (2, "accepted"):
            one = await link.queue.get()
            kinds.append((bthome.counter_of(one.service_data), parts.ingest.advert(one).kind))
        assert kinds == [(1, "accepted"), (1, "duplicate"), (1, "duplicate"), (2, "accepted")]
        await parts.ingest.commit()
        assert await parts.column("select seq from readings order by seq") == [1, 2]
        counted = "select value from counters where name = 'duplicate'"
        assert await parts.column(counted) == [2]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await parts.store.close()

    tell(story)
