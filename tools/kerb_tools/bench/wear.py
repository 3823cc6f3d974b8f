"""kerb bench wear: what a day of readings writes to the card, for several commit intervals.

A day of 200 nodes at one reading in 15 minutes goes through the real ingest, store and outbox; the
bytes that the process hands to the kernel in write calls are counted (/proc/self/io, wchar). The
file system's own journal comes on top of it. Each node is met once in two hours, as a bin that
opens its door at each eighth wake is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import uuid
from pathlib import Path

from kerb_gateway.clock import Moment
from kerb_gateway.ingest import Ingest
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.timekeeper import NodeClock
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics

from kerb_tools.bench import readings
from kerb_tools.bench.result import Bar, Result

NODES = 200
_INTERVAL_S = 900
_DAY_S = 86400
COMMITS_S = (30, 60, 120, 300)
_WAKES_A_MEETING = 8
_UP_MS = 3_000_000_000  # five weeks: numbers as long as they are in a gateway's life
_WALL_MS = 1_780_000_000_000
_BAR_MB = 35.0
_DEFAULT_S = 120
_MB = 1e6


def run(seed: int) -> Result:
    """Run a day for each commit interval."""
    result = Result("wear", seed)
    for commit_s in COMMITS_S:
        written, transactions, size = asyncio.run(_day(seed, commit_s))
        result.figures[f"written_mb_a_day_at_{commit_s}_s"] = round(written / _MB, 1)
        result.figures[f"transactions_a_day_at_{commit_s}_s"] = transactions
        result.figures[f"file_mb_after_a_day_at_{commit_s}_s"] = round(size / _MB, 2)
    default = result.figures[f"written_mb_a_day_at_{_DEFAULT_S}_s"]
    result.bars.append(
        Bar(f"written_mb_a_day_at_{_DEFAULT_S}_s", default, _BAR_MB, at_least=False)
    )
    return result


async def _day(seed: int, commit_s: int) -> tuple[int, int, int]:
    """Return (bytes written, transactions, size of the file) of one day."""
    with tempfile.TemporaryDirectory(prefix="kerb-bench-") as folder:
        path = Path(folder) / "gateway.sqlite"
        store = Store(path)
        await store.open()
        nodes = readings.nodes(NODES, seed)
        await store.write(
            [("insert into nodes values (?,?,?)", [n.node_no, n.node_id, n.role]) for n in nodes]
        )
        payloads = NativePayloads(Topics("north", "gw1"), store.gw_epoch)
        ledger = await Ledger.load(store, payloads, nodes, _silent)
        clock = _Day()
        ingest = Ingest(ledger, nodes, clock, _silent, commit_interval_s=3600, commit_rows=1 << 30)
        for node in nodes:
            await ingest.epoch(node, readings.EPOCH, 0)
        await ingest.commit()
        senders = [readings.Sender(node, seed + node.node_no) for node in nodes]
        before = _written()
        sent = 0
        for number in range(1, _DAY_S // commit_s + 1):
            due = number * commit_s * NODES // _INTERVAL_S
            clock.at_ms += 1000 * commit_s
            for one in range(sent, due):
                heard = senders[one % NODES].next()
                ingest.advert(dataclasses.replace(heard, boottime_ms=clock.at_ms))
                if one // NODES % _WAKES_A_MEETING == one % _WAKES_A_MEETING:
                    node = nodes[one % NODES]
                    stream = ledger.streams[(node.node_id, readings.EPOCH)]
                    met = NodeClock(1, (clock.at_ms - _UP_MS) // 1000, stream.last_seq)
                    ingest.time.contact(stream, met, clock.at_ms - 300, clock.at_ms)
            sent = due
            await ingest.commit()
            for message in await ledger.outbox.after(ledger.outbox.read, 1 << 20):
                ledger.outbox.ended(message.outbox_no)
        written = _written() - before
        size = path.stat().st_size
        await store.close()
        return written, ingest.commits, size


class _Day:
    """A machine's clocks that go through the day as fast as the bench does."""

    def __init__(self) -> None:
        self.at_ms = _UP_MS
        self._boot_id = str(uuid.UUID(int=7))

    def boottime_ms(self) -> int:
        return self.at_ms

    def now(self) -> Moment:
        return Moment(self._boot_id, self.at_ms, self.at_ms + _WALL_MS, "ntp")


def _written() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    return 0


def _silent(event: str, **fields: object) -> None:
    """Say nothing."""
