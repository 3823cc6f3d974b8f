"""The gateway's Bluetooth link, the real bleak under it, at the emulated org.bluez."""

# ruff: noqa: F811  tell is a fixture
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kerb_gateway.clock import SystemClock
from kerb_gateway.errors import LinkDown, LinkError
from kerb_gateway.links.ble import BleLink
from kerb_gateway.model import Heard
from kerb_sim.air.habits import Habits
from kerb_sim.air.medium import Characteristic, Service
from test_air import (  # noqa: F401  tell is a fixture
    SETTLE_S,
    Client,
    Echo,
    World,
    advert,
    tell,
)


@pytest.mark.parametrize(
    ("kernel", "offered", "mode"),
    [("6.5.0-rpi", True, "active"), ("6.12.1", True, "passive"), ("6.12.1", False, "active")],
)
def test_the_link_scans_passively_where_that_hears_repeats(
    tell: Callable[..., None], kernel: str, offered: bool, mode: str
) -> None:
    async def story(world: World) -> None:
        said: list[tuple[str, dict[str, Any]]] = []

        def log(event: str, **fields: Any) -> None:
            said.append((event, fields))

        link = BleLink("hci0", "auto", SystemClock(), log, kernel=kernel)
        task = asyncio.ensure_future(link.scan())
        while not [event for event, _ in said if event == "scanning"]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(SETTLE_S)
        assert [fields["mode"] for event, fields in said if event == "scanning"] == [mode]
        world.say(advert(1), advert(2))
        heard = [await link.queue.get() for _ in range(2)]
        assert [one.service_data for one in heard] == [b"\x00\x01", b"\x00\x02"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    tell(story, Habits(passive=offered))


def test_the_link_survives_the_death_of_bluetoothd(tell: Callable[..., None]) -> None:
    async def story(world: World) -> None:
        said: list[str] = []
        link = BleLink(
            "hci0",
            "auto",
            SystemClock(),
            lambda event, **fields: said.append(event),
            deaf_after_s=0.4,
            connect_timeout_s=2,
            kernel="6.12.1",
        )

        async def keep() -> None:
            while True:
                with contextlib.suppress(LinkDown):
                    await link.scan()
                await asyncio.sleep(0.1)

        task = asyncio.ensure_future(keep())
        await _hear(world, link, 1)
        await world.bluez.stop()
        await asyncio.sleep(1.0)
        await world.bluez.start()
        await _hear(world, link, 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    tell(story)


async def _hear(world: World, link: BleLink, number: int) -> None:
    """Repeat an advert until the link has heard it."""
    while True:
        world.say(advert(number))
        await asyncio.sleep(0.05)
        while not link.queue.empty():
            if link.queue.get_nowait().service_data == number.to_bytes(2, "big"):
                return


async def _clients_of(client: Client) -> int:
    """Return how many connections the bus has."""
    names = await client.call(
        "/org/freedesktop/DBus", "org.freedesktop.DBus", "ListNames",
        destination="org.freedesktop.DBus",
    )  # fmt: skip
    return sum(name.startswith(":") for name in names)


@contextlib.asynccontextmanager
async def _calling_on(world: World, station: Echo) -> AsyncIterator[tuple[BleLink, Heard]]:
    """Yield a link that scans, and an advert of the station as the link has heard it."""
    world.air.join(station)
    link = BleLink("hci0", "active", SystemClock(), lambda *_, **__: None)
    task = asyncio.ensure_future(link.scan())
    await asyncio.sleep(SETTLE_S)
    world.say(advert(7))
    async with asyncio.timeout(5):
        heard = await link.queue.get()
    try:
        yield link, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_peer_that_is_no_node_of_ours_leaves_no_connection_behind(
    tell: Callable[..., None],
) -> None:
    """Whoever takes a node's address and has no service must not use up links and bus."""

    async def story(world: World) -> None:
        stranger = Echo()
        level = Characteristic("00002a19-0000-1000-8000-00805f9b34fb", 0x02, 18)
        stranger.services = [Service("0000180f-0000-1000-8000-00805f9b34fb", [level])]  # a battery
        async with _calling_on(world, stranger) as (link, heard):
            client = await world.client()
            before = await _clients_of(client)
            for number in (1, 2, 3):
                with pytest.raises(LinkError, match="no Kerbstone service"):
                    async with link.converse(heard):
                        pass
                assert (stranger.left, await _clients_of(client)) == (number, before)

    tell(story)


def test_a_session_that_is_cut_short_while_it_opens_leaves_none_either(
    tell: Callable[..., None],
) -> None:
    async def story(world: World) -> None:
        node = Echo()
        async with _calling_on(world, node) as (link, heard):
            client = await world.client()
            before = await _clients_of(client)

            async def converse() -> None:
                async with link.converse(heard):
                    await asyncio.sleep(60)

            for pause_s in (0.0, 0.1, 0.2, 0.3):  # before, amid and after it
                session = asyncio.ensure_future(converse())
                while node.connection is None:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(pause_s)
                session.cancel()
                await asyncio.gather(session, return_exceptions=True)
                assert node.connection is None
                assert await _clients_of(client) == before

    tell(story)
