"""A gateway's real parts on a file of their own for each input: store, ledger, ingest.

Rule: no input sees what another left behind, so that a finding repeats alone; `check` is the
contract's identity, asked of memory and of the file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerb_gateway.ingest import Ingest
from kerb_gateway.model import Node
from kerb_gateway.store import report
from kerb_gateway.store.database import Operation, Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics

from kerb_tools.fuzz import warp
from kerb_tools.fuzz.target import Broken

KEY = bytes(range(16))
NODE_ID = "a4cf12000001"
LAMP_ID = "a4cf12000002"
EPOCH = 77
BUS = "street"
TOPICS = Topics("north", "gw1")
NODES = [
    Node(1, NODE_ID, "bin", KEY),
    Node(2, LAMP_ID, "lamp", KEY, bus=BUS, unit=1),
]


def log(event: str, **fields: Any) -> None:
    """Say nothing."""


class Benches:
    """Makes a bench for each input from one file that is made once."""

    def __init__(self, prepared: Sequence[Operation] = ()) -> None:
        """prepared: what every file begins with, besides the nodes."""
        self._prepared = list(prepared)
        self._folder = tempfile.TemporaryDirectory(prefix="kerb-fuzz-")
        self._template = Path(self._folder.name) / "template.sqlite"
        self._path = Path(self._folder.name) / "gateway.sqlite"
        warp.run(self._make)

    async def _make(self) -> None:
        store = Store(self._template)
        await store.open()
        insert = "insert into nodes (node_no, node_id, role) values (?,?,?)"
        await store.write([(insert, [n.node_no, n.node_id, n.role]) for n in NODES])
        # Without any command the first number is random, and no finding would repeat.
        await store.write(
            [("insert into commands (command_no, command_id, state) values (1,'old','done')", [])]
        )
        await store.write(self._prepared)
        await store.close()

    async def open(self) -> Bench:
        """Return a bench over a fresh copy."""
        for part in ("-wal", "-shm"):
            self._path.with_name(self._path.name + part).unlink(missing_ok=True)
        shutil.copyfile(self._template, self._path)
        bench = Bench(self._path)
        await bench.open()
        return bench


class Bench:
    """The parts, over two nodes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path)
        self.clock = warp.WarpClock()

    async def open(self) -> None:
        """Open the store and load what ingest needs."""
        await self.store.open()
        payloads = NativePayloads(TOPICS, self.store.gw_epoch)
        self.ledger = await Ledger.load(self.store, payloads, NODES, log)
        self.ingest = Ingest(
            self.ledger, NODES, self.clock, log, commit_interval_s=60, commit_rows=500
        )

    async def check(self) -> None:
        """Commit and compare: every number is stored once, lost, or in a gap. Broken else."""
        await self.ingest.commit()
        for stream in self.ledger.streams.values():
            if stream.unexplained():
                raise Broken(f"{stream.unexplained()} numbers are unexplained")
            for gap in stream.gaps:
                if not 1 <= gap.first_seq <= gap.last_seq <= stream.last_seq:
                    raise Broken(f"a gap from {gap.first_seq} to {gap.last_seq}")
        doubles = await self.store.query(
            "select stream_no, seq from readings group by 1, 2 having count(*) > 1"
        )
        if doubles:
            raise Broken(f"{len(doubles)} readings are stored twice")
        with report.opened(self.path) as connection:
            if any(one.unexplained for one in report.streams(connection)):
                raise Broken("the file's account does not add up")

    async def close(self) -> None:
        """Close the store and its thread."""
        await self.store.close()
