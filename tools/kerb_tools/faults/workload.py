"""One life of a gateway's store under the recorder: `python -m kerb_tools.faults.workload`.

The real store, ledger, ingest, publisher and retention work through what a seed says: adverts with
skips and repeats, backfill with losses, new epochs, a broker that refuses and keeps back, hours of
retention, checkpoints. Links, commands and the real broker are not here: kills and streets have
them.

Rule: what the gateway says to a node or a broker is marked right where it says it.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from pathlib import Path

from kerb_gateway.burial import Burial
from kerb_gateway.ingest import Ingest
from kerb_gateway.model import Stream
from kerb_gateway.publisher import Batch, Publisher
from kerb_gateway.store.ballast import Ballast
from kerb_gateway.store.database import Operation, Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.retention import Retention
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics
from kerb_wire import records
from kerb_wire.words import LOSSES, code

from kerb_tools.faults.broker import MemoryBroker, NumberedOutbox
from kerb_tools.faults.fingerprint import done_mark, fingerprint
from kerb_tools.faults.marks import Marks
from kerb_tools.faults.scripted import ScriptedBin, ScriptedClock, nodes

DATABASE = "gateway.sqlite"
TOPICS = Topics("north", "gw1")
NODES = 3
_BALLAST_BYTES = 16384
_KEEP_S = 4 * 3600.0
_SMALL_BYTES, _LARGE_BYTES = 120_000, 1 << 30
_QUIET_TURNS = 30
_TURN_S = 0.001
_CHECKPOINTS = ("passive", "full", "restart", "truncate")


def silent(event: str, **fields: object) -> None:
    """Say nothing."""


class MarkedStore(Store):
    """The real store; each transaction is marked before it begins and when it is reported."""

    def __init__(self, path: Path, marks: Marks) -> None:
        super().__init__(path)
        self._marks = marks

    async def open(self) -> None:
        await super().open()
        await self._run(self._opened)

    def _opened(self) -> None:
        now, done = fingerprint(self.connection), done_mark(self.connection)
        self._marks.say("opened", gw_epoch=self.gw_epoch, fingerprint=now, done=done)

    def _write(self, operations: list[Operation]) -> None:
        self._marks.say("begin")
        super()._write(operations)
        self._marks.say("committed", fingerprint=fingerprint(self.connection))

    @property
    def connection(self) -> sqlite3.Connection:
        """The writing connection."""
        return self._open_connection()


class Life:
    """The parts of one life and what happens to them."""

    def __init__(self, folder: Path, seed: int, life: int) -> None:
        self._seed = seed
        self._rng = random.Random(f"{seed}/{life}")
        self._marks = Marks(folder)
        self._store = MarkedStore(folder.resolve() / DATABASE, self._marks)
        self._clock = ScriptedClock(f"boot-{life}")
        self._ballast = Ballast(folder.resolve() / DATABASE, _BALLAST_BYTES)

    async def begin(self) -> None:
        """Open everything as the gateway does."""
        store, rng = self._store, self._rng
        await store.open()
        # From a checkpoint at almost every commit to none but those that are asked for.
        pages = rng.choice((6, 20, 60, 1000))
        await store.query(f"pragma wal_autocheckpoint = {pages}")
        ours = nodes(NODES, self._seed)
        await store.write(
            [
                (
                    "insert or ignore into nodes (node_no, node_id, role) values (?,?,?)",
                    [one.node_no, one.node_id, one.role],
                )
                for one in ours
            ]
        )
        payloads = NativePayloads(TOPICS, store.gw_epoch)
        self._ledger = await Ledger.load(store, payloads, ours, silent)
        outbox = NumberedOutbox(store, payloads)
        await outbox.load()
        self._ledger.outbox = outbox
        self._ballast.load()
        self._ingest = Ingest(
            self._ledger, ours, self._clock, silent,
            commit_interval_s=3600, commit_rows=500, ballast=self._ballast,
        )  # fmt: skip
        self._broker = MemoryBroker(outbox, self._marks, rng)
        self._publisher = Publisher(
            outbox, self._broker, self._ingest.committed, silent,
            in_flight=20, mark_s=3600, batch=Batch(TOPICS.batch, 1),
            bury=Burial(self._ledger, self._ingest.commit).bury,
        )  # fmt: skip
        self._retention = Retention(
            store, self._ledger, self._clock, silent,
            commit=self._ingest.commit_or_full,
            keep_s=_KEEP_S, max_bytes=rng.choice((_SMALL_BYTES, _LARGE_BYTES)),
        )  # fmt: skip
        self._bins = [ScriptedBin(one, self._seed) for one in ours]
        for one in self._bins:
            self._resume(one)

    def _resume(self, one: ScriptedBin) -> None:
        stream = self._ledger.newest_stream(one.node.node_id)
        if stream is not None:
            one.epoch, one.seq = stream.epoch, stream.last_seq

    async def run(self, actions: int) -> None:
        """Do so many things, drawn from the seed."""
        publishing = asyncio.ensure_future(self._publisher.run())
        kinds = (
            (self._adverts, 8),
            (self._commit, 5),
            (self._session, 4),
            (self._publish, 4),
            (self._hour, 2),
            (self._checkpoint, 1),
            (self._new_epoch, 1),
        )
        for one in self._bins:
            await self._greet(one)
        for _ in range(actions):
            (action,) = self._rng.choices([kind for kind, _ in kinds], [n for _, n in kinds])
            await action()
            if publishing.done():
                publishing.result()
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await self._publisher.mark()

    async def close(self) -> None:
        """End cleanly."""
        await self._store.close()

    async def _greet(self, one: ScriptedBin) -> Stream:
        return await self._ingest.epoch(one.node, one.epoch, one.seq)

    async def _adverts(self) -> None:
        """Some nodes measure; one number in four is not heard, one in six twice."""
        for _ in range(self._rng.randint(1, 6)):
            one = self._rng.choice(self._bins)
            one.seq += self._rng.choice((1, 1, 1, 2 + self._rng.randrange(3)))
            self._clock.sleep(30)
            for _ in range(self._rng.choice((1, 1, 1, 1, 1, 2))):
                self._ingest.advert(one.heard(one.seq, self._clock.boottime_ms()))
            if one.seq > 3 and self._rng.random() < 0.2:  # a replay, or one that comes too late
                late = one.seq - self._rng.randrange(1, 3)
                self._ingest.advert(one.heard(late, self._clock.boottime_ms()))

    async def _commit(self) -> None:
        await self._ingest.commit()

    async def _session(self) -> None:
        """Fetch some gaps, commit, and only then acknowledge, as a session does."""
        one = self._rng.choice(self._bins)
        stream = await self._greet(one)
        for first_seq, last_seq in stream.ranges()[: self._rng.randint(0, 4)]:
            if self._rng.random() < 0.25:
                lost = records.pack_lost(first_seq, last_seq, code(LOSSES, "overwritten"))
                self._ingest.record(stream, lost, via="gatt", auth="mic")
                continue
            for seq in range(first_seq, last_seq + 1):
                self._ingest.record(stream, one.record(seq), via="gatt", auth="mic")
        await self._ingest.commit()
        self._marks.say("acked", stream_no=stream.stream_no, seq=stream.accounted_seq())

    async def _publish(self) -> None:
        """Let the publisher work until nothing more is sent."""
        self._broker.connected.set()
        self._broker.quiet = 0
        while self._broker.quiet < _QUIET_TURNS:
            self._broker.quiet += 1
            await asyncio.sleep(_TURN_S)
        self._broker.connected.clear()
        if self._rng.random() < 0.5:
            await self._ledger.outbox.write_mark()

    async def _hour(self) -> None:
        self._clock.sleep(3600)
        await self._retention.hour()

    async def _checkpoint(self) -> None:
        await self._store.query(f"pragma wal_checkpoint({self._rng.choice(_CHECKPOINTS)})")

    async def _new_epoch(self) -> None:
        """A node has lost its memory: its old stream's tail is unknown from now on."""
        one = self._rng.choice(self._bins)
        one.epoch, one.seq = one.epoch + 1, self._rng.randint(0, 3)
        await self._greet(one)
        await self._ingest.commit()


async def _live(folder: Path, seed: int, life: int, actions: int) -> None:
    story = Life(folder, seed, life)
    await story.begin()
    await story.run(actions)
    await story.close()


if __name__ == "__main__":
    asyncio.run(_live(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
