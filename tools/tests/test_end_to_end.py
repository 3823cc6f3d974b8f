"""Whole streets on real parts while things are killed: nothing may be lost silently."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from aes import new_ecb
from kerb_gateway.clock import SystemClock
from kerb_gateway.store.migrations import migrations
from kerb_sim.air.medium import Advert
from kerb_sim.street import Member, Street
from kerb_tools import losses
from kerb_tools.demo.away import SMALL_LOG, go_away
from kerb_tools.demo.run import Demo
from kerb_wire import advert, bthome, keys, records
from kerb_wire.provisioning import address_of
from paho.mqtt.enums import CallbackAPIVersion
from sqlite_utils import Database
from streets import SEED, assert_accounted, calm, run_street

_KILLS = 20


def test_gateway_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    rng = random.Random(SEED)

    async def kill(demo: Demo) -> None:
        for _ in range(_KILLS):
            await asyncio.sleep(rng.uniform(0.4, 2.2))
            await demo.kill_gateway()
            await demo.start_gateway()

    verdict = run_street(tmp_path, bins=3, lamps=3, duration_s=30, during=kill)
    assert_accounted(verdict)
    assert verdict.figures["readings_delivered_unique"] > 40


def test_broker_killed_and_back(tmp_path: Path) -> None:
    async def kill(demo: Demo) -> None:
        await asyncio.sleep(6)
        await demo.street.broker.stop(kill=True)
        await asyncio.sleep(1.5)
        await demo.street.broker.start()

    verdict = run_street(tmp_path, bins=2, lamps=2, duration_s=14, during=kill)
    assert_accounted(verdict)


def test_gateway_and_broker_killed_with_messages_in_flight(tmp_path: Path) -> None:
    """A frozen broker takes messages and acknowledges none; then both are gone."""

    async def kill(demo: Demo) -> None:
        broker = demo.street.broker
        await asyncio.sleep(5)
        broker.freeze()
        await asyncio.sleep(3)  # some commits, whose messages end in the socket's buffer
        await demo.kill_gateway()
        await broker.stop(kill=True)
        await broker.start()
        await demo.start_gateway()

    verdict = run_street(tmp_path, bins=3, lamps=2, duration_s=14, during=kill)
    assert_accounted(verdict)


def test_what_the_broker_acknowledged_and_lost_is_asked_for_again(tmp_path: Path) -> None:
    """A broker without a memory dies while its only consumer is away, twice."""

    async def lose(demo: Demo) -> None:
        broker = demo.street.broker
        demo.subscriber.send_signal(signal.SIGSTOP)
        broker.saves = False
        for _ in range(2):
            await broker.stop(kill=True)
            await broker.start()
            await asyncio.sleep(4)
        demo.subscriber.send_signal(signal.SIGCONT)

    verdict = run_street(tmp_path, bins=2, lamps=1, duration_s=12, during=lose)
    assert_accounted(verdict, lost_by_broker=True)


def test_what_a_small_log_overwrote_is_declared_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def away(demo: Demo) -> None:
        await go_away(demo, 15.0)  # of which each bin needs half to come round

    verdict = run_street(
        tmp_path, bins=2, lamps=0, duration_s=20, during=away, scale=1200.0, bin_settings=SMALL_LOG
    )
    assert_accounted(verdict)
    assert losses.main([str(tmp_path / "run"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    overwritten = [one for one in said["losses"] if one["reason"] == "overwritten"]
    assert len({one["node"] for one in overwritten}) == 2
    assert sum(one["last_seq"] - one["first_seq"] + 1 for one in overwritten) > 0
    assert said["unexplained"] == 0


def test_bus_units_that_answer_late_garble_and_die(tmp_path: Path) -> None:
    async def trouble(demo: Demo) -> None:
        lamps = [member.name for member in demo.street.members if member.role == "lamp"]
        bus = demo.street.bus
        await asyncio.sleep(4)
        bus.trouble(lamps[0], late_ms=600)
        bus.trouble(lamps[1], garble=0.05)
        bus.trouble(lamps[2], dead=True)
        await asyncio.sleep(5)
        for lamp in lamps[:3]:
            bus.trouble(lamp)

    verdict = run_street(tmp_path, bins=0, lamps=4, duration_s=14, during=trouble)
    assert_accounted(verdict)
    assert verdict.figures["commands_applied"] > 0


def test_bluetooth_daemon_dies_and_returns(tmp_path: Path) -> None:
    async def die(demo: Demo) -> None:
        await asyncio.sleep(4)
        await demo.street.bluez.stop()
        await asyncio.sleep(5)  # longer than deaf_after_s
        await demo.street.bluez.start()

    verdict = run_street(tmp_path, bins=2, lamps=0, duration_s=16, during=die)
    assert_accounted(verdict)
    log = (tmp_path / "run" / "gateway.log").read_text()
    assert "nothing heard: scan restarted" in log
    assert '"link down"' in log


def test_a_lamp_fails_and_is_mended_while_its_bus_is_silent(tmp_path: Path) -> None:
    """The faults are in the lamp's log by the time that anyone can ask for them."""
    faults = calm(
        22,
        lamp_fault_s=4.0,
        lamp_fault_for_s=7.0,
        bus_silence_s=6.0,
        bus_silence_for_s=7.0,
    )
    verdict = run_street(tmp_path, bins=0, lamps=2, duration_s=22, faults=faults)
    assert_accounted(verdict)
    assert verdict.figures["lamp_faults_set"] == verdict.figures["lamp_faults_reported"] == 1


def forged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def jumped(demo: Demo, member: Member) -> bytes:
    """A valid MIC with a counter far ahead: only who has the key can make it."""
    key = bytes.fromhex((demo.street.run_dir / "keys" / f"{member.name}.key").read_text())
    with sqlite3.connect(demo.street.run_dir / "gateway.sqlite") as db:
        (epoch,) = db.execute(
            "select epoch from streams join nodes using (node_no) where node_id = ?",
            [member.name],
        ).fetchone()
    ecb = new_ecb(keys.advert_key(new_ecb, key, epoch))
    record = records.pack_fill(1, 90000, 1, 1000, 1, 0, 200, 90, 0, 7, 7, 0, 0)
    objects = advert.objects_of(records.unpack(record), epoch)
    address = address_of(bytes.fromhex(member.name))
    return bthome.advertising_data(bthome.seal(ecb, address, 90000, objects))


def send_bad_commands(street: Street) -> None:
    """A repeated command, broken JSON, and a level that is none."""
    lamp = next(one.name for one in street.members if one.role == "lamp")
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", street.broker.port)
    client.loop_start()
    topic = f"kerb/v1/demo/gw1/{lamp}/cmd"
    again = {"command_id": "demo-1", "level_pct": 55, "hold_s": 60, "ttl_s": 9}
    for payload in (
        json.dumps(again),
        "{",
        json.dumps({"command_id": "bad", "level_pct": 900}),
    ):
        client.publish(topic, payload, qos=1).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()


async def send_too_late(demo: Demo) -> str:
    """A command whose life ends before its lamp can be heard again."""
    street = demo.street
    lamp = next(one.name for one in street.members if one.role == "lamp")
    street.bus.trouble(lamp, dead=True)
    command_id = demo.commander.send(lamp, level_pct=15, ttl_s=1)
    await asyncio.sleep(2)
    street.bus.trouble(lamp)
    return command_id


def results_of(run: Path, command_id: str) -> set[str]:
    """Return the results that the subscriber saw for a command."""
    rows = [json.loads(line) for line in (run / "subscriber.jsonl").read_text().splitlines()]
    found = [row["payload"] for row in rows if row.get("topic", "").endswith("/result")]
    return {row["result"] for row in found if row["command_id"] == command_id}


def test_hostile_adverts_two_adapters_and_bad_commands(tmp_path: Path) -> None:
    """Forged, replayed and jumped adverts, each heard twice; repeated and malformed commands."""

    async def attack(demo: Demo) -> None:
        street = demo.street
        await asyncio.sleep(7)
        member = street.members[0]
        address = member.board.radio.address
        old = street._heard[address]
        await asyncio.sleep(4)
        counter = int.from_bytes(old[-8:-4], "little")
        for kind, data in (
            ("replay", old),
            ("forge", forged(old)),
            ("forge", jumped(demo, member)),
        ):
            street.record.write(kind, node=member.name, counter=counter)
            street.air.inject(Advert(address, data, -50, False))
            await asyncio.sleep(0.3)
        send_bad_commands(street)
        late.append(await send_too_late(demo))

    late: list[str] = []
    verdict = run_street(
        tmp_path, bins=2, lamps=1, duration_s=14, during=attack, adapters=("hci0", "hci1")
    )
    assert_accounted(verdict)
    assert verdict.figures["replays_injected"] == verdict.figures["replays_rejected"] == 3
    log = (tmp_path / "run" / "gateway.log").read_text()
    for word in ("quarantined", "command repeated", "level_pct = 900"):
        assert word in log
    with sqlite3.connect(tmp_path / "run" / "gateway.sqlite") as db:
        counted = dict(db.execute("select name, sum(value) from counters group by name"))
    assert counted["duplicate"] > 10  # the second adapter hears everything too
    assert counted["advert with a wrong MIC"] >= 1
    assert results_of(tmp_path / "run", late[0]) == {"expired"}
    assert results_of(tmp_path / "run", "bad") == {"refused"}


def test_sigterm_ends_the_gateway_cleanly(tmp_path: Path) -> None:
    """In the middle of a batch: what is in memory is committed, the will says offline."""
    stored: list[int] = []

    async def stop(demo: Demo) -> None:
        await asyncio.sleep(8)
        demo.gateway.terminate()
        assert await asyncio.wait_for(demo.gateway.wait(), 5) == 0
        with sqlite3.connect(demo.street.run_dir / "gateway.sqlite") as db:
            query = "select count(*) from readings where event = 'periodic' and via = 'advert'"
            stored.append(db.execute(query).fetchone()[0])
        await demo.start_gateway()

    # No commit by the clock: but for events, which wait for nothing, all is in memory.
    verdict = run_street(tmp_path, bins=3, lamps=0, duration_s=12, during=stop, commit_s=60)
    assert_accounted(verdict)
    assert stored[0] >= 2
    log = (tmp_path / "run" / "gateway.log").read_text()
    assert sum('"stopped"' in line for line in log.splitlines()) >= 2
    assert all(json.loads(line) for line in log.splitlines())


def anchored_before(run: Path, offset_ms: int) -> None:
    """Leave a database behind that knows the wall time of this very boot of the machine."""
    run.mkdir()
    db = Database(run / "gateway.sqlite")
    migrations.apply(db)
    moment = SystemClock().now()
    db.execute("insert into gateway_boots values (1, ?, 0)", [moment.boot_id])
    db.execute(
        "insert into clock_anchors values (1, 1, ?, ?, 2000)",
        [moment.boottime_ms, moment.boottime_ms + offset_ms],
    )
    db.conn.commit()
    db.close()


def test_each_message_says_when_it_was_made(tmp_path: Path) -> None:
    """Polled, heard and fetched readings; an anchor of before is known to the new process."""
    offset_ms = 1_700_000_000_000
    anchored_before(tmp_path / "run", offset_ms)
    verdict = run_street(tmp_path, bins=1, lamps=1, duration_s=6)
    assert_accounted(verdict)
    assert verdict.figures["time_range_ms_p50"] is not None
    assert verdict.comparison is not None
    times = {"bin": [], "lamp": []}
    for reading in verdict.comparison.unique.values():
        times["bin" if reading.content["kind"] == "fill" else "lamp"].append(
            reading.content["time"]
        )
    for time in times["bin"] + times["lamp"]:
        if time["wall_quality"] == "none":  # else somebody keeps this machine's clock right
            assert time["quality"] == "anchored"
            assert abs(time["utc_ms"] - time["t_ms"] - offset_ms) < 100
    widths = [one["t_max_ms"] - one["t_min_ms"] for one in times["lamp"]]
    assert widths
    assert max(widths) < 10_000  # whole seconds, twice, and the bus between
