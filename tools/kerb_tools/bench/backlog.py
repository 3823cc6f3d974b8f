"""A store with a backlog of any size, made by SQLite itself, and a gateway that drains it.

Rule: the rows are those that ingest would have written, column by column; only the way in is
shorter, since ten million readings through it would take longer than the drain.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kerb_gateway.store.database import Store

from kerb_tools.bench import process, readings
from kerb_tools.bench.brokers import BenchBroker
from kerb_tools.bench.peers.base import Program
from kerb_tools.bench.peers.kerbstone import AS_INSTALLED
from kerb_tools.bench.radio import MARK
from kerb_tools.bench.sink import Sink

_NODES = 200
_WAIT_S = 300.0
_READINGS = """
with recursive number(n) as (select 1 union all select n + 1 from number where n < :rows)
insert into readings (
    reading_no, stream_no, seq, kind, distance_mm, sigma_mm, quality, temperature_dc,
    battery_pct, event, flags, backlog, via, auth, boot_id, boottime_ms, wall_ms, wall_quality,
    digest)
select n, n % :nodes + 1, n / :nodes + 1, 'fill', 300 + n % 2000, 3, 'good', n % 300, 90,
    'periodic', 1, 3, 'advert', 'mic', :boot_id, n, 1764000000000 + n, 'ntp', x'0102030405060708'
from number
"""
_OUTBOX = (
    "insert into outbox (outbox_no, kind, row_no) "
    "select reading_no, 'reading', reading_no from readings"
)
_STREAMS = """
insert into streams (stream_no, node_no, epoch, last_seq, stored)
select stream_no, stream_no, :epoch, max(seq), count(*) from readings group by stream_no
"""


@dataclass(frozen=True)
class Drained:
    """What draining a part of a backlog gave."""

    rate_per_s: float
    cpu_us: float
    peak_mb: float
    ready_s: float  # from the start to the first reading upstream


async def make(path: Path, rows: int) -> None:
    """Write a store with `rows` undelivered readings of 200 nodes."""
    store = Store(path)
    await store.open()
    await store.close()
    await asyncio.to_thread(_fill, path, rows)


def _fill(path: Path, rows: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma synchronous = off")
    connection.executemany(
        "insert into nodes values (?,?,?)",
        [(n.node_no, n.node_id, n.role) for n in readings.nodes(_NODES, 7)],
    )
    values = {"rows": rows, "nodes": _NODES, "boot_id": "0" * 36, "epoch": readings.EPOCH}
    for statement in (_READINGS, _OUTBOX, _STREAMS):
        connection.execute("begin")
        connection.execute(statement, {k: v for k, v in values.items() if f":{k}" in statement})
        connection.execute("commit")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def begin_at(path: Path, outbox_no: int) -> None:
    """Let everything up to a row count as delivered."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "insert into meta values ('outbox_done', ?) "
            "on conflict (key) do update set value = excluded.value",
            [str(outbox_no)],
        )
    connection.close()


class DrainGateway(Program):
    """`kerb-gateway run` with a backlog and no link."""

    name = "kerbstone"
    identity = re.compile(b"")

    def __init__(self, folder: Path, upstream: BenchBroker) -> None:
        super().__init__(folder, upstream, upstream)

    def command(self) -> Sequence[str]:
        config = [
            '[gateway]\nid = "gw1"\nsite = "north"\n[store]\npath = "gateway.sqlite"\n',
            f'max_mb = 100000\n[uplink]\nhost = "127.0.0.1"\nport = {self.upstream.port}\n',
            "in_flight = 100\nbatch_rows = 200\n[ble]\nenabled = false\n",
        ]
        for node in readings.nodes(_NODES, 7):
            (self.folder / f"{node.node_id}.key").write_text(node.root_key.hex())
            config.append(
                f'[[nodes]]\nnode_id = "{node.node_id}"\nrole = "bin"\n'
                f'key_file = "{node.node_id}.key"\n'
            )
        (self.folder / "gateway.toml").write_text("".join(config))
        return [sys.executable, "-c", AS_INSTALLED, "run", "--config", "gateway.toml"]

    def is_ready(self) -> bool:
        return b"uplink connected" in self.log.read_bytes()


async def drain(folder: Path, count: int) -> Drained:
    """Start a gateway on folder's store and stop it when `count` readings have come upstream."""
    upstream = BenchBroker(folder / "upstream")
    await upstream.start()
    gateway = DrainGateway(folder, upstream)
    try:
        sink = await Sink.subscribe(upstream.port, "kerb/v1/#", MARK, count)
        sink.keep = False
        started = time.monotonic()
        await gateway.start()
        while not sink.count:
            await asyncio.wait_for(_moved(sink), _WAIT_S)
        first, before = sink.count, process.of(gateway.pids)
        began = time.monotonic()
        await asyncio.wait_for(sink.enough.wait(), _WAIT_S)
        took_s, got = time.monotonic() - began, max(1, sink.count - first)
        cost = process.of(gateway.pids).since(before)
        return Drained(got / took_s, cost.cpu_s / got * 1e6, cost.peak_kb / 1024, began - started)
    finally:
        await gateway.stop()
        await upstream.stop()


async def _moved(sink: Sink) -> None:
    sink.moved.clear()
    await sink.moved.wait()
