"""Traps of paho that others fell into: that they are there, and that we are not in them."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import signal
import sqlite3
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from kerb_gateway.links import ble
from kerb_gateway.publisher import Publisher
from kerb_gateway.store.database import Store
from kerb_gateway.uplink import mqtt as uplink_file
from kerb_gateway.uplink.mqtt import Incoming, Log, Uplink
from kerb_sim.broker import Broker, find_mosquitto
from mqtt_parts import CountingProxy, Packets, ScriptedBroker, packet, published
from paho.mqtt.enums import CallbackAPIVersion
from parts import LAMP_ID, TOPICS, log
from streets import need
from test_publisher import ALONE, bury_in, outbox_of, store_with

_WAIT_S = 20


def bare(**more: Any) -> mqtt.Client:
    return mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, **more)


def uplink_to(port: int, protocol: str = "5", log: Log = log) -> Uplink:
    return Uplink(
        host="127.0.0.1", port=port, client_id="trap", username=None, password=None,
        availability=TOPICS.availability, commands=TOPICS.commands, keepalive_s=60,
        protocol=protocol, log=log, reconnect_last_s=1,
    )  # fmt: skip


async def until(condition: Any) -> None:
    async with asyncio.timeout(_WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def publishing(path: Path, port: int, rows: int, in_flight: int) -> AsyncIterator[Publisher]:
    """Our publisher at work over `rows` waiting messages."""
    store: Store = await store_with(path, rows)
    uplink = uplink_to(port)
    publisher = Publisher(
        await outbox_of(store), uplink, asyncio.Event(), log,
        in_flight=in_flight, mark_s=60, bury=bury_in(store), batch=ALONE,
    )  # fmt: skip
    uplink.start()
    task = asyncio.ensure_future(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await uplink.stop(0.1)
        await store.close()


# --- publish from a callback ---


def test_paho_holds_its_messages_lock_while_it_calls_on_publish() -> None:
    """Why waiting in a callback for anybody who publishes is a deadlock."""

    async def story() -> None:
        broker = ScriptedBroker()
        broker.acks_by_itself = True
        client = bare()
        seen: list[bool] = []

        def on_publish(*_: Any) -> None:
            other = threading.Thread(target=client.publish, args=("t", b"2", 1))
            other.start()
            other.join(0.3)
            seen.append(other.is_alive())

        client.on_publish = on_publish
        client.connect_async("127.0.0.1", await broker.start())
        client.loop_start()
        client.publish("t", b"1", qos=1)
        await until(lambda: seen)
        assert seen[0]  # still waiting for the lock that the caller of on_publish holds
        client.disconnect()
        await asyncio.get_running_loop().run_in_executor(None, client.loop_stop)
        broker.stop()

    asyncio.run(story())


_MAY = {"bool",
    "_hand_over", "append", "getattr", "bytes", "str", "Incoming", "call_soon_threadsafe",
    "is_closed", "_hold_back",
}  # fmt: skip


def calls(function: Any) -> set[str]:
    """Return the names of everything that a method calls."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {one.attr if isinstance(one, ast.Attribute) else ast.unparse(one) for one in names}


def test_our_callbacks_hand_over_and_nothing_else() -> None:
    make = ast.parse(textwrap.dedent(inspect.getsource(Uplink._make)))
    callbacks = {
        target.attr: ast.unparse(node.value)
        for node in ast.walk(make)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr.startswith("on_")
    }
    assert set(callbacks) == {
        "on_connect", "on_connect_fail", "on_subscribe", "on_disconnect", "on_publish",
        "on_message",
    }  # fmt: skip
    for name, value in callbacks.items():
        if value.startswith("lambda"):
            assert "_hand_over" in value
            continue
        method = getattr(Uplink, value.removeprefix("self."))
        assert calls(method) <= _MAY, name
    assert calls(Uplink._hand_over) <= _MAY
    text = inspect.getsource(uplink_file)
    assert text.count(".on_") == len(callbacks) + text.count("self.on_")  # set there only
    hand_over = {"put_nowait", "log", "_log", "time", "get_running_loop", "boottime_ms", "Heard"}
    known = {"get", "bytes", "upper", "suppress"}
    for method in (ble.BleLink._detected, ble.GattStream._arrived):
        assert calls(method) <= hand_over | known


def test_what_the_broker_says_is_dealt_with_in_the_event_loop(tmp_path: Path) -> None:
    """With a real broker: the handlers run where they were made, never in paho's thread."""
    need("mosquitto", find_mosquitto())

    async def story() -> None:
        broker = Broker(tmp_path / "broker")
        await broker.start()
        uplink = uplink_to(broker.port)
        where: dict[str, threading.Thread] = {}
        done = asyncio.Event()

        def acked(mid: int, reason: int) -> None:
            where["acked"] = threading.current_thread()
            if len(where) == 1:
                uplink.publish(TOPICS.of(LAMP_ID, "cmd"), b"{}")  # harmless from here

        def commanded(incoming: Incoming) -> None:
            where["command"] = threading.current_thread()
            uplink.ack(incoming)
            done.set()

        uplink.on_acked, uplink.on_command = acked, commanded
        uplink.start()
        await asyncio.wait_for(uplink.connected.wait(), _WAIT_S)
        uplink.publish(TOPICS.of(LAMP_ID, "reading"), b"1")
        await asyncio.wait_for(done.wait(), _WAIT_S)
        assert set(where.values()) == {threading.main_thread()}
        await uplink.stop(1)
        await broker.stop()

    asyncio.run(story())


# --- many in flight ---


def _scans(in_flight: int) -> int:
    """Return how many lines paho runs through to look for more to send, over all PUBACKs."""
    client = bare()
    client.max_inflight_messages_set(65535)
    lines = 0

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_name != "_update_inflight":
            return None
        lines += event == "line"
        return watch

    async def story() -> None:
        broker = ScriptedBroker()
        port = await broker.start()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, client.connect, "127.0.0.1", port)
        for number in range(in_flight):
            client.publish("t", b"%d" % number, qos=1)
        await until(lambda: client.loop(0) or len(broker.outstanding) == in_flight)
        for mid in sorted(broker.outstanding):
            broker.ack(mid)
        sys.settrace(watch)
        try:
            await until(lambda: client.loop(0) or not client._out_messages)
        finally:
            sys.settrace(None)
        client.disconnect()
        broker.stop()

    asyncio.run(story())
    return lines


def test_paho_looks_through_all_in_flight_at_each_puback() -> None:
    assert _scans(120) > 3.5 * _scans(60)  # twice as many cost four times as much


def test_never_more_in_flight_than_our_window(tmp_path: Path) -> None:
    async def story() -> None:
        broker = ScriptedBroker()
        port = await broker.start()
        async with publishing(tmp_path / "g.sqlite", port, 500, 50) as publisher:
            await until(lambda: len(broker.outstanding) == 50)
            await asyncio.sleep(0.2)
            assert broker.most == 50
            assert len(publisher._broker._client._out_messages) == 50  # type: ignore[attr-defined]
            broker.acks_by_itself = True
            for mid in list(broker.outstanding):
                broker.ack(mid)
            await until(lambda: publisher.delivered == 500)
        assert broker.most == 50
        broker.stop()

    asyncio.run(story())


# --- the broker's Receive Maximum ---


def test_paho_does_not_honour_the_receive_maximum() -> None:
    async def story() -> None:
        broker = ScriptedBroker(receive_maximum=3)
        client = bare()
        client.connect_async("127.0.0.1", await broker.start())
        client.loop_start()
        for number in range(50):
            client.publish("t", b"%d" % number, qos=1)
        await until(lambda: broker.most > 3)
        client.disconnect()
        await asyncio.get_running_loop().run_in_executor(None, client.loop_stop)
        broker.stop()

    asyncio.run(story())


def test_ours_does_though_no_puback_comes(tmp_path: Path) -> None:
    async def story() -> None:
        broker = ScriptedBroker(receive_maximum=3)
        port = await broker.start()
        async with publishing(tmp_path / "g.sqlite", port, 40, 50):
            await until(lambda: len(broker.outstanding) == 3)
            await asyncio.sleep(0.3)
            assert broker.most == 3
        broker.stop()

    asyncio.run(story())


def test_ours_honours_what_a_real_broker_allows(tmp_path: Path) -> None:
    need("mosquitto", find_mosquitto())

    async def story() -> None:
        broker = Broker(tmp_path / "broker", max_inflight=3)
        await broker.start()
        proxy = CountingProxy(broker.port, 0.01)
        port = await proxy.start()
        async with publishing(tmp_path / "g.sqlite", port, 120, 50) as publisher:
            await until(lambda: publisher.delivered == 120)
        assert proxy.acked >= 120
        assert proxy.most == 3
        proxy.stop()
        await broker.stop()

    asyncio.run(story())


def test_paho_sends_all_again_whatever_the_broker_takes_now() -> None:
    async def story() -> None:
        broker = ScriptedBroker(receive_maximum=20)
        client = bare()
        client.connect_async("127.0.0.1", await broker.start())
        client.loop_start()
        for number in range(10):
            client.publish("t", b"%d" % number, qos=1)
        await until(lambda: len(broker.outstanding) == 10)
        broker.limit = 3
        broker.drop()
        await until(lambda: len(broker.lives) == 2 and len(broker.lives[1]) == 10)
        client.disconnect()
        await asyncio.get_running_loop().run_in_executor(None, client.loop_stop)
        broker.stop()

    asyncio.run(story())


def test_ours_sends_again_only_what_the_broker_takes_now(tmp_path: Path) -> None:
    """A lower Receive Maximum, then a higher one: in order, and all of it in the end."""

    async def story() -> None:
        broker = ScriptedBroker(receive_maximum=20)
        port = await broker.start()
        async with publishing(tmp_path / "g.sqlite", port, 40, 50) as publisher:
            await until(lambda: len(broker.outstanding) == 20)
            before = [payload for _, _, payload in broker.lives[0]]
            broker.limit, broker.most = 3, 0
            broker.drop()
            await until(lambda: len(broker.lives) == 2 and len(broker.outstanding) == 3)
            for _ in range(2):
                broker.ack(min(broker.outstanding))
                await until(lambda: len(broker.outstanding) == 3)
            assert broker.most == 3
            assert [payload for _, _, payload in broker.lives[1]] == before[:5]
            broker.limit = 30
            broker.drop()
            await until(lambda: len(broker.lives) == 3 and len(broker.outstanding) == 30)
            assert [payload for _, _, payload in broker.lives[2]][:18] == before[2:]
            broker.acks_by_itself = True
            for mid in list(broker.outstanding):
                broker.ack(mid)
            await until(lambda: publisher.delivered == 40)
            assert broker.most == 30
        broker.stop()

    asyncio.run(story())


# --- message ids that come back ---

_CONFIG = """
[gateway]
id = "gw1"
site = "north"
[store]
path = "g.sqlite"
commit_interval_s = 0.2
ballast_mb = 0
[uplink]
host = "127.0.0.1"
port = {port}
protocol = "5"
batch_rows = 1
[ble]
enabled = false
"""


async def _gateway(folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kerb_gateway", "run", "-c", str(folder / "gateway.toml"),
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def _marked(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        row = connection.execute("select value from meta where key = 'outbox_done'").fetchone()
    return int(row[0])


def test_ids_of_an_earlier_life_end_no_row_of_this_one(tmp_path: Path) -> None:
    """SIGKILL with messages in flight; the session lives on, and paho counts from 1 again."""

    async def story() -> None:
        broker = ScriptedBroker()
        (tmp_path / "gateway.toml").write_text(_CONFIG.format(port=await broker.start()))
        await (await store_with(tmp_path / "g.sqlite", 6)).close()
        first = await _gateway(tmp_path)
        await until(lambda: broker.lives and len(broker.lives[0]) == 6)
        before = {payload: mid for mid, _, payload in broker.lives[0]}
        broker.ack(before[b"1"])
        broker.ack(before[b"2"])
        await until(lambda: _marked(tmp_path / "g.sqlite") == 2)
        first.send_signal(signal.SIGKILL)
        await first.wait()

        second = await _gateway(tmp_path)
        await until(lambda: len(broker.lives) == 2 and len(broker.lives[1]) == 4)
        now = {payload: mid for mid, _, payload in broker.lives[1]}
        assert set(now) == {b"3", b"4", b"5", b"6"}
        assert now[b"3"] == before[b"1"]  # the trap: the same id, another row
        for mid in set(before.values()) - set(now.values()):
            broker.ack(mid)  # of the earlier life: nobody here waits for it
        broker.ack(now[b"4"])  # out of its turn: the mark may not pass row 3
        await asyncio.sleep(0.8)
        assert _marked(tmp_path / "g.sqlite") == 2
        broker.ack(now[b"3"])
        await until(lambda: _marked(tmp_path / "g.sqlite") == 4)
        second.send_signal(signal.SIGKILL)
        await second.wait()
        broker.stop()

    asyncio.run(story())


def test_the_packet_reader_reads_what_paho_writes() -> None:
    """The counter itself: a PUBLISH in pieces, and the one that follows."""
    body = b"\x00\x01t\x00\x05\x00payload"
    stream = packet(3, body, 2) + packet(3, b"\x00\x01t\x00", 0)
    packets = Packets()
    found = [one for at in range(len(stream)) for one in packets.feed(stream[at : at + 1])]
    assert [published(*one) for one in found] == [(5, "t", b"payload"), (0, "t", b"")]


@pytest.mark.parametrize("method", ["_connected", "_published", "_arrived", "_disconnected"])
def test_a_callback_never_waits(method: str) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(Uplink, method))))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Await, ast.While))]
