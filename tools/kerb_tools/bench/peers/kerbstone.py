"""Kerbstone's own gateway process: sealed bundles in, native JSON out."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kerb_gateway.crypto import new_ecb
from kerb_wire import bundle

from kerb_tools.bench import readings
from kerb_tools.bench.brokers import WINDOW, BenchBroker
from kerb_tools.bench.peers.base import Peer

NODES = 200
COMMIT_S = 0.05
COMMIT_ROWS = 1000
# A gateway's own install has no numpy; here another extra has brought it, and sqlite_utils would
# load it where it is (15 MB).
AS_INSTALLED = "import sys; sys.modules['numpy'] = None; from kerb_gateway.cli import main; main()"


class Kerbstone(Peer):
    """`kerb-gateway run` with one store, one broker below and one above."""

    name = "kerbstone"
    durability = (
        "SQLite WAL, synchronous=FULL; the broker below is acknowledged after COMMIT, a row ends "
        f"on the PUBACK from above; COMMIT every {COMMIT_S * 1000:.0f} ms or {COMMIT_ROWS} rows"
    )
    upstream_topic = "kerb/v1/#"
    mark = b'"id":"'
    identity = re.compile(rb'"id":"([0-9a-f]+)/\d+/(\d+)"')

    def __init__(self, folder: Path, inbound: BenchBroker, upstream: BenchBroker) -> None:
        super().__init__(folder, inbound, upstream)
        self._nodes = readings.nodes(NODES, 7)
        self._ecbs = [
            new_ecb(bundle.bundle_key(new_ecb, node.root_key, readings.EPOCH))
            for node in self._nodes
        ]
        self._rng = random.Random(7)

    def message(self, number: int) -> tuple[str, bytes]:
        index, seq = number % NODES, number // NODES + 1
        record = readings.record(seq, self._rng)
        sealed = bundle.seal(self._ecbs[index], readings.EPOCH, seq, [record])
        return bundle.up_topic(self._nodes[index].node_id), sealed

    def key(self, number: int) -> tuple[bytes, ...]:
        node = self._nodes[number % NODES]
        return node.node_id.encode(), b"%d" % (number // NODES + 1)

    def command(self) -> Sequence[str]:
        config = [
            '[gateway]\nid = "gw1"\nsite = "north"\n',
            f'[store]\npath = "gateway.sqlite"\ncommit_interval_s = {COMMIT_S}\n',
            f"commit_rows = {COMMIT_ROWS}\n",
            f'[uplink]\nhost = "127.0.0.1"\nport = {self.upstream.port}\n',
            "in_flight = 100\nbatch_rows = 200\n[ble]\nenabled = false\n",
            f"[nodes_mqtt]\nenabled = true\nport = {self.inbound.port}\nwindow = {WINDOW}\n",
        ]
        for node in self._nodes:
            (self.folder / f"{node.node_id}.key").write_text(node.root_key.hex())
            config.append(
                f'[[nodes]]\nnode_id = "{node.node_id}"\nrole = "bin"\nlink = "mqtt"\n'
                f'key_file = "{node.node_id}.key"\n'
            )
        (self.folder / "gateway.toml").write_text("".join(config))
        return [sys.executable, "-c", AS_INSTALLED, "run", "--config", "gateway.toml"]

    def is_ready(self) -> bool:
        log = self.log.read_bytes()
        return b"nodes' broker connected" in log and b"uplink connected" in log
