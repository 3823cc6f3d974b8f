"""A gateway process on an emulated org.bluez, for the benches that are about adverts.

Rule: the gateway is the real one with the real bleak; the store knows the nodes' epochs before it
starts, so that only adverts are measured and no sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from kerb_gateway.clock import SystemClock
from kerb_gateway.crypto import new_ecb
from kerb_gateway.ingest import Ingest
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics
from kerb_sim.air.bluez import Bluez
from kerb_sim.air.dbus_daemon import DbusDaemon
from kerb_sim.air.medium import Advert, Air
from kerb_wire import advert, bthome, keys, records
from kerb_wire.provisioning import address_of

from kerb_tools.bench import readings
from kerb_tools.bench.brokers import BenchBroker
from kerb_tools.bench.peers.base import Program
from kerb_tools.bench.peers.kerbstone import AS_INSTALLED
from kerb_tools.system_parts import find_dbus_daemon

NODES = 200
IDENTITY = re.compile(rb'"id":"([0-9a-f]+)/\d+/(\d+)"')
MARK = b'"id":"'
_SETTLE_S = 0.5
_BUS = "DBUS_SYSTEM_BUS_ADDRESS"


class RadioGateway(Program):
    """`kerb-gateway run` with one adapter and 200 bins."""

    name = "kerbstone"
    commit_s = 120.0  # the default

    def __init__(self, folder: Path, inbound: BenchBroker, upstream: BenchBroker) -> None:
        super().__init__(folder, inbound, upstream)
        self.nodes = readings.nodes(NODES, 7)

    async def prepare(self) -> None:
        """Let the store know the epoch of each node, as after a first session."""
        store = Store(self.folder / "gateway.sqlite")
        await store.open()
        await store.write(
            [
                ("insert into nodes values (?,?,?)", [node.node_no, node.node_id, node.role])
                for node in self.nodes
            ]
        )
        topics = Topics("north", "gw1")
        payloads = NativePayloads(topics, store.gw_epoch)
        ledger = await Ledger.load(store, payloads, self.nodes, _silent)
        ingest = Ingest(
            ledger, self.nodes, SystemClock(), _silent, commit_interval_s=60, commit_rows=1 << 30
        )
        for node in self.nodes:
            await ingest.epoch(node, readings.EPOCH, 0)
        await ingest.commit()
        await store.close()

    def command(self) -> Sequence[str]:
        config = [
            '[gateway]\nid = "gw1"\nsite = "north"\n',
            f'[store]\npath = "gateway.sqlite"\ncommit_interval_s = {self.commit_s}\n',
            f'[uplink]\nhost = "127.0.0.1"\nport = {self.upstream.port}\nin_flight = 100\n',
        ]
        for node in self.nodes:
            (self.folder / f"{node.node_id}.key").write_text(node.root_key.hex())
            config.append(
                f'[[nodes]]\nnode_id = "{node.node_id}"\nrole = "bin"\n'
                f'key_file = "{node.node_id}.key"\n'
            )
        (self.folder / "gateway.toml").write_text("".join(config))
        return [sys.executable, "-c", AS_INSTALLED, "run", "--config", "gateway.toml"]

    def is_ready(self) -> bool:
        log = self.log.read_bytes()
        return b"scanning" in log and b"uplink connected" in log


class Voices:
    """The adverts of all nodes, in turns, each with its next number."""

    def __init__(self, gateway: RadioGateway) -> None:
        self._rng = random.Random(7)
        self._nodes = []
        for node in gateway.nodes:
            ecb = new_ecb(keys.advert_key(new_ecb, node.root_key, readings.EPOCH))
            self._nodes.append((ecb, address_of(bytes.fromhex(node.node_id))))
        self._said = 0

    def next(self) -> Advert:
        """Return the next node's next advert; its door is closed, so that nobody connects."""
        index, seq = self._said % NODES, self._said // NODES + 1
        self._said += 1
        ecb, address = self._nodes[index]
        row = records.unpack(readings.record(seq, self._rng, flags=0))
        sealed = bthome.seal(ecb, address, seq, advert.objects_of(row, readings.EPOCH))
        text = ":".join(f"{octet:02X}" for octet in address)
        return Advert(text, bthome.advertising_data(sealed), -70, False)


class World:
    """What a bench on the air has at hand."""

    def __init__(self, daemon: DbusDaemon, air: Air, bluez: Bluez, gateway: RadioGateway) -> None:
        self.daemon, self.air, self.bluez, self.gateway = daemon, air, bluez, gateway


@contextlib.asynccontextmanager
async def world(folder: Path, kind: type[RadioGateway]) -> AsyncIterator[World]:
    """Start a bus, an emulated bluetoothd, a broker upstream and a gateway; end them all."""
    program = find_dbus_daemon()
    if program is None:
        raise RuntimeError("dbus-daemon is missing: make setup installs it")
    upstream = BenchBroker(folder / "upstream")
    place = folder / "gateway"
    place.mkdir()
    gateway = kind(place, upstream, upstream)
    await gateway.prepare()
    daemon = await DbusDaemon.start(program, folder / "dbus")
    air = Air(7)
    bluez = Bluez(daemon.address, air)
    before = os.environ.get(_BUS)
    os.environ[_BUS] = daemon.address
    try:
        await upstream.start()
        await bluez.start()
        await gateway.start()
        await asyncio.sleep(_SETTLE_S)  # a monitor is exported after its registration
        yield World(daemon, air, bluez, gateway)
    finally:
        os.environ.pop(_BUS)
        if before is not None:
            os.environ[_BUS] = before
        await gateway.stop()
        await bluez.stop()
        await upstream.stop()
        await daemon.stop()


def _silent(event: str, **fields: object) -> None:
    """Say nothing."""
