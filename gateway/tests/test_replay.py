"""Kept rows once more: in order, marked, beside the live flow, through kills, with one result."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from gateways import Running, Subscriber, command, fill, write_config
from kerb_gateway.burial import Burial
from kerb_gateway.publisher import Batch, Publisher
from kerb_gateway.replay import Replayer
from kerb_gateway.service import client
from kerb_gateway.service.protocol import Status
from kerb_gateway.store.replays import Replay, Replays
from kerb_gateway.uplink.mqtt import Incoming
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.refusals import Patience
from kerb_sim.broker import Broker, find_mosquitto
from paho.mqtt.enums import CallbackAPIVersion
from parts import LAMP_ID, NODE_ID, TOPICS, Parts, heard, log
from streets import need

TOPIC = TOPICS.of("gateway", "cmd")


class AnsweringBroker:
    """Acknowledges each message at once; `refuse` may give it another reason code."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.receive_maximum = 65535
        self.maximum_packet_bytes = 268_435_455
        self.on_acked: Callable[[int, int], None] = lambda mid, reason: None
        self.refuse: Callable[[Any], int] = lambda message: 0
        self.sent: list[Any] = []
        self.flying = self.most_flying = 0
        self._mids = itertools.count(1)

    def publish(self, topic: str, payload: bytes) -> int:
        mid = next(self._mids)
        message = json.loads(payload)
        self.sent.append(message)
        self.flying += 1
        self.most_flying = max(self.flying, self.most_flying)
        asyncio.get_running_loop().call_later(0.002, self._answer, mid, self.refuse(message))
        return mid

    def renew(self) -> None:
        raise AssertionError("every PUBACK came")

    def _answer(self, mid: int, reason: int) -> None:
        self.flying -= 1
        self.on_acked(mid, reason)

    def replayed(self) -> list[dict[str, Any]]:
        """Return what was sent as replayed, batches taken apart."""
        flat = [one for m in self.sent for one in (m if isinstance(m, list) else [m])]
        return [one for one in flat if one.get("replayed")]


class Bench:
    """Parts with a publisher and a replayer that run."""

    @classmethod
    async def open(cls, path: Path, broker: AnsweringBroker) -> Bench:
        bench = cls()
        bench.parts = parts = await Parts.open(path)
        bench.broker = broker
        payloads = NativePayloads(TOPICS, parts.store.gw_epoch)
        bench.replays = Replays(parts.store, parts.ledger)

        bury = Burial(parts.ledger, parts.ingest.commit).bury
        batch = Batch(TOPICS.batch, 16)
        publisher = Publisher(
            parts.ledger.outbox, broker, parts.ingest.committed, log,
            in_flight=4, mark_s=60, bury=bury, batch=batch,
        )  # fmt: skip
        bench.replayer = Replayer(
            bench.replays, parts.ledger, payloads, parts.ingest.commit, publisher, broker, batch,
            log, rows_s=5000, patience=Patience(first_s=0.01, last_s=0.02, tries=3),
        )  # fmt: skip
        jobs = [publisher.run(), bench.replayer.run(), bench.replayer.accept_for_ever()]
        bench.tasks = [asyncio.ensure_future(job) for job in jobs]
        return bench

    async def ask(self, payload: Any, *, retained: bool = False) -> None:
        acked = asyncio.Event()
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.replayer.take(Incoming(TOPIC, data, retained, 1, 1), lambda _: acked.set())
        await asyncio.wait_for(acked.wait(), 10)

    async def results(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(20):
            while True:
                found = [one for one in await self.parts.payloads() if "result" in one]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.02)

    async def idle(self) -> None:
        async with asyncio.timeout(20):
            while await self.parts.ledger.outbox.waiting():
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.parts.store.close()


def request(command_id: str, first: int, last: int) -> dict[str, Any]:
    return {"command_id": command_id, "replay": {"from": first, "to": last}}


def story_with(
    tmp_path: Path,
    count: int,
    tell: Callable[[Bench, AnsweringBroker], Awaitable[None]],
    refuse: Callable[[Any], int] = lambda message: 0,
) -> None:
    async def story() -> None:
        broker = AnsweringBroker()
        broker.refuse = refuse
        bench = await Bench.open(tmp_path / "g.sqlite", broker)
        await bench.parts.stream()
        for seq in range(1, count + 1):
            bench.parts.ingest.advert(heard(seq))
        await bench.parts.ingest.commit()
        await bench.idle()
        await tell(bench, broker)
        await bench.close()

    asyncio.run(asyncio.wait_for(story(), 40))


def test_rows_come_once_more_in_order_and_the_live_flow_goes_on(tmp_path: Path) -> None:
    async def tell(bench: Bench, broker: AnsweringBroker) -> None:
        broker.receive_maximum = 2
        parts, outbox = bench.parts, bench.parts.ledger.outbox
        await parts.store.write(
            [
                ("delete from outbox where outbox_no <= 20", []),
                ("delete from readings where seq <= 20", []),
                ("delete from readings where seq = 50", []),
            ]
        )
        broker.most_flying = 0
        await bench.ask(request("r1", 11, 5000))
        done = outbox.done
        for seq in range(301, 331):
            parts.ingest.advert(heard(seq))
            if seq % 10 == 0:  # more at once than the broker's room
                await parts.ingest.commit()
                await asyncio.sleep(0.005)
        (result,) = await bench.results(1)
        await bench.idle()
        replayed = broker.replayed()
        assert [one["outbox_no"] for one in replayed] == [
            *range(21, 50),
            *range(51, done + 1),
        ]
        assert {one["gw_epoch"] for one in replayed} == {parts.store.gw_epoch}
        assert all(one["seq"] == one["outbox_no"] for one in replayed)
        assert broker.most_flying <= 2  # the broker's word holds for both flows together
        live = [one for one in broker.sent if isinstance(one, dict) and not one.get("replayed")]
        assert [one["seq"] for one in live if one.get("seq", 0) > 300] == list(range(301, 331))
        assert outbox.done == parts.ledger.last_outbox_no
        assert {name: result[name] for name in list(result)[1:]} == {
            "command_id": "r1",
            "result": "replayed",
            "from": 11,
            "to": 5000,
            "published": done - 21,
            "refused": 0,
            "letters": 0,
            "not_kept": 11,
            "not_kept_ranges": [[11, 20], [50, 50]],
            "still_queued": [done + 1, 5000],
            "gw_epoch": parts.store.gw_epoch,
            "outbox_no": outbox.done,
        }
        assert result["published"] + result["not_kept"] + (5000 - done) == 5000 - 11 + 1

    story_with(tmp_path, 300, tell)


def test_a_request_has_one_result_and_wrong_ones_a_sentence(tmp_path: Path) -> None:
    async def tell(bench: Bench, broker: AnsweringBroker) -> None:
        for payload in (
            request("a", 1, 3),
            request("a", 1, 3),  # repeated by the broker, or by its sender
            request("b", 3, 1),
            request("b", 1, 3),
            request("c", 1, 3) | {"more": 1},
            request("d", 1, 2_000_000),
            b"{",
            b'{"command_id":"e","replay":{"from":1,"from":2,"to":3}}',
        ):
            await bench.ask(payload)
        await bench.ask(request("f", 1, 3), retained=True)
        results = await bench.results(7)
        await asyncio.sleep(0.1)
        assert len(await bench.results(7)) == 7
        said = {one["command_id"]: one for one in results}
        assert {name: one["result"] for name, one in said.items()} == {
            "a": "replayed", "b": "refused", "c": "refused", "d": "refused", None: "refused",
            "e": "refused", "f": "refused",
        }  # fmt: skip
        assert "at most 1000000" in said["d"]["detail"]
        assert len(broker.replayed()) == 3

    story_with(tmp_path, 5, tell)


def test_a_request_is_acknowledged_when_it_is_stored(tmp_path: Path) -> None:
    async def tell(bench: Bench, broker: AnsweringBroker) -> None:
        stored: list[int] = []

        def ack(_: Any) -> None:
            path = f"file:{tmp_path / 'g.sqlite'}?mode=ro"
            with sqlite3.connect(path, uri=True) as db:
                stored.append(db.execute("select count(*) from replays").fetchone()[0])

        message = Incoming(TOPIC, json.dumps(request("a", 1, 2)).encode(), False, 1, 1)
        bench.replayer.take(message, ack)
        await bench.results(1)
        assert stored == [1]

    story_with(tmp_path, 3, tell)


def test_letters_are_not_replayed_and_refusals_are_counted(tmp_path: Path) -> None:
    async def tell(bench: Bench, broker: AnsweringBroker) -> None:
        assert await bench.parts.column("select outbox_no from dead_letters") == [2]
        asked: list[int] = []

        def refuse(message: Any) -> int:
            if isinstance(message, list):
                return 0x83 if any(one["seq"] in (3, 4) for one in message) else 0
            if message.get("seq") == 3:
                asked.append(3)
                return 0x80  # and so for ever: it is counted as refused in the end
            if message.get("seq") == 4:
                asked.append(4)
                return 0x97 if asked.count(4) < 3 else 0
            return 0

        broker.refuse = refuse
        await bench.ask(request("a", 1, 10))
        (result,) = [one for one in await bench.results(1) if one["command_id"] == "a"]
        assert (result["letters"], result["refused"], result["published"]) == (1, 1, 8)
        assert asked == [3, 3, 3, 4, 4, 4]

    def refuse_two(message: Any) -> int:
        return 0x87 if isinstance(message, dict) and message.get("seq") == 2 else 0

    story_with(tmp_path, 10, tell, refuse_two)


def test_ranges_not_kept_are_merged_counted_and_bounded() -> None:
    replay = Replay(1, "x", 1, 1000, 1000, 1)
    for number in range(1, 201):
        replay.miss(number, number)
    for number in range(301, 501, 2):
        replay.miss(number, number)
    replay.miss(700, 699)
    assert replay.not_kept_ranges[0] == [1, 200]
    assert len(replay.not_kept_ranges) == 32
    assert replay.not_kept == 300


def publish_over_mqtt(port: int, payload: dict[str, Any]) -> None:
    sender = mqtt.Client(CallbackAPIVersion.VERSION2)
    sender.connect("127.0.0.1", port)
    sender.loop_start()
    sender.publish(TOPIC, json.dumps(payload), qos=1).wait_for_publish(10)
    sender.disconnect()
    sender.loop_stop()


def test_a_replay_outlives_the_gateway(tmp_path: Path) -> None:
    """Real gateway, real mosquitto: killed in the middle, it goes on; one result in the end."""
    need("mosquitto", find_mosquitto())
    count = 400
    asyncio.run(fill(tmp_path / "gateway.sqlite", count, buried=False))

    async def story() -> None:
        broker = Broker(tmp_path / "broker")
        await broker.start()
        config = write_config(tmp_path, broker.port, f"""
silent_after_s = 1
[[nodes]]
node_id = "{LAMP_ID}"
role = "bin"
key_file = "key"
""")  # fmt: skip
        text = config.read_text().replace("keepalive_s", "replay_rows_s = 200\nkeepalive_s")
        config.write_text(text)
        socket = tmp_path / "gateway.sqlite.sock"
        async with Subscriber(tmp_path / "heard.jsonl", broker.port) as heard_:
            gateway = Running(config)
            await gateway.start()
            await heard_.until("reading", count)
            while (await asyncio.to_thread(client.ask, socket, Status()))["outbox"]["waiting"]:
                await asyncio.sleep(0.05)
            now = json.loads(await asyncio.to_thread(command, config, "status", "--json"))
            assert now["running"]
            assert now["uplink"] | {"port": 0} == {
                "connected": True, "host": "127.0.0.1", "port": 0, "protocol": "5",
                "no_room": False,
            }  # fmt: skip
            assert now["outbox"]["delivered"] == count
            assert {one["node"]: one["last_seq"] for one in now["nodes"]} == {
                NODE_ID: count,
                LAMP_ID: 0,
            }
            assert now["disk"]["used_bytes"] > 50_000
            shown = await asyncio.to_thread(command, config, "status")
            assert "MQTT 5" in shown
            assert NODE_ID in shown
            await asyncio.to_thread(publish_over_mqtt, broker.port, request("r", 1, count))
            await heard_.until("reading", count + 100)
            await gateway.end(signal.SIGKILL)
            await gateway.start()
            (result,) = await heard_.until("result", 1)
            assert result["result"] == "replayed"
            assert result["published"] == count
            local = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kerb_gateway", "replay", "--from", "5", "--to", "9",
                "--config", str(config), "--json", stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(local.communicate(), 30)
            assert local.returncode == 0
            assert (json.loads(out)["state"], json.loads(out)["published"]) == ("done", 5)
            await heard_.until("result", 2)
            await gateway.end(signal.SIGTERM)
            replayed = [one for one in heard_.payloads("reading") if one.get("replayed")]
            assert {one["seq"] for one in replayed} == set(range(1, count + 1))
            assert [one["seq"] for one in replayed[-5:]] == [5, 6, 7, 8, 9]
            assert len(heard_.payloads("result")) == 2
            # Nobody heard the bin in all that time: said once, whatever was killed.
            tails = {one["id"]: one["first_seq"] for one in heard_.payloads("event")}
            assert list(tails.values()) == [count + 1]
        await broker.stop()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_without_a_gateway_a_replay_waits_and_a_status_says_so(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "gateway.sqlite", 3, buried=True))
    config = write_config(tmp_path)
    state = json.loads(command(config, "replay", "--from", "1", "--to", "3", "--json"))
    assert (state["state"], state["published"]) == ("open", 0)
    assert "must not be below" in command(config, "replay", "--from", "3", "--to", "1", status=1)
    assert "no gateway listens here" in command(config, "status", status=1)


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"command_id": 7}'])
def test_what_is_no_command_at_all_does_no_harm(tmp_path: Path, payload: bytes) -> None:
    async def tell(bench: Bench, broker: AnsweringBroker) -> None:
        await bench.ask(payload)
        (result,) = await bench.results(1)
        assert (result["result"], result["command_id"]) == ("refused", None)

    story_with(tmp_path, 1, tell)
