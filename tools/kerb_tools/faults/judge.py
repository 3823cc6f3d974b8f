"""Opens a state with the real store and says what of the gateway's promises it breaks.

Rule: each state is opened by Store.open and Ledger.load, not by a model of them; what is looked at
besides is read from the tables as data.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from kerb_gateway.errors import StoreError
from kerb_gateway.ingest import ACCEPTED, Ingest
from kerb_gateway.model import Node
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.payloads.native import NativePayloads

from kerb_tools.faults.fingerprint import fingerprint
from kerb_tools.faults.marks import Promise
from kerb_tools.faults.scripted import ScriptedBin, ScriptedClock
from kerb_tools.faults.workload import DATABASE, TOPICS, silent

_HALF = {
    "a reading twice": "select count(*) - count(distinct stream_no * 4294967296 + seq) "
    "from readings",
    "a reading inside an open gap": "select count(*) from readings r join gaps g on "
    "g.stream_no = r.stream_no and r.seq between g.first_seq and g.last_seq",
    "a reading above its watermark": "select count(*) from readings r join streams s "
    "using (stream_no) where r.seq > s.last_seq",
    "more readings than were counted": "select count(*) from streams s where s.stored < "
    "(select count(*) from readings r where r.stream_no = s.stream_no)",
    "an outbox row without what it names": "select count(*) from outbox o where "
    "o.outbox_no > {done} and (o.kind = 'reading' and not exists "
    "(select 1 from readings r where r.reading_no = o.row_no) or o.kind = 'loss' and not exists "
    "(select 1 from losses l where l.loss_no = o.row_no))",
    # Outbox rows go oldest first and only when they are done: no newer reading is without one.
    "a reading without its outbox row": "select count(*) from readings r where r.reading_no > "
    "(select min(row_no) from outbox where kind = 'reading') and not exists "
    "(select 1 from outbox o where o.kind = 'reading' and o.row_no = r.reading_no)",
    "a loss without its outbox row": "select count(*) from losses l where l.loss_no > "
    "(select min(row_no) from outbox where kind = 'loss') and not exists "
    "(select 1 from outbox o where o.kind = 'loss' and o.row_no = l.loss_no)",
    "an outbox row above the last": "select count(*) from outbox where outbox_no > {last}",
}


@dataclass
class Sight:
    """What a state turned out to be; `wrong` needs no promise to be wrong."""

    wrong: list[str] = field(default_factory=list)
    put_aside: bool = False
    gw_epoch: str = ""
    fingerprint: str = ""
    next_outbox: int = 0
    passed: list[int] = field(default_factory=list)  # outbox rows that the done mark lies behind
    accounted: dict[int, int] = field(default_factory=dict)  # stream_no -> without a hole up to


class ReadStore(Store):
    """The real store, and a look at all that it holds."""

    async def fingerprint(self) -> str:
        """Return the fingerprint of what was found."""
        return await self._run(lambda: fingerprint(self._open_connection()))


class Judge:
    """Opens states in a scratch directory of its own."""

    def __init__(
        self, scratch: Path, nodes: list[Node], seed: int, damaged: bytes | None = None
    ) -> None:
        """damaged: the file that lay there at first; it must be found again when put aside."""
        self._scratch = scratch
        self._damaged = damaged
        self._nodes = nodes
        self._seed = seed

    async def look(self, files: dict[str, bytes], *, go_on: bool) -> Sight:
        """Open the state; go_on: take one more reading too, as the first act of a new life."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        for name, content in files.items():
            (self._scratch / name).write_bytes(content)
        sight = Sight()
        store = ReadStore(self._scratch / DATABASE)
        try:
            await store.open()
            try:
                await self._opened(store, sight, go_on=go_on)
            finally:
                await store.close()
        except StoreError as error:
            sight.wrong.append(f"not usable: {error}")
        if sight.put_aside and self._damaged is not None and not self._kept(self._damaged):
            sight.wrong.append("the damaged file is gone")
        return sight

    def _kept(self, content: bytes) -> bool:
        return any(path.read_bytes() == content for path in self._scratch.iterdir())

    async def _opened(self, store: ReadStore, sight: Sight, *, go_on: bool) -> None:
        sight.put_aside = store.put_aside is not None
        check = (await store.query("pragma integrity_check(1)"))[0][0]
        if check != "ok":
            sight.wrong.append(f"integrity_check: {check}")
        sight.gw_epoch = store.gw_epoch
        sight.fingerprint = await store.fingerprint()
        payloads = NativePayloads(TOPICS, store.gw_epoch)
        ledger = await Ledger.load(store, payloads, self._nodes, silent)
        sight.next_outbox = ledger.last_outbox_no + 1
        done = ledger.outbox.done
        # A letter has ended too: refused, maybe before the recording began.
        rows = await store.query(
            "select outbox_no from outbox where outbox_no <= ? and outbox_no not in (select "
            "outbox_no from dead_letters union select outbox_no from ended_letters)",
            [done],
        )
        sight.passed = [row[0] for row in rows]
        for stream in ledger.streams.values():
            sight.accounted[stream.stream_no] = stream.accounted_seq()
            if stream.unexplained():
                sight.wrong.append(
                    f"stream {stream.stream_no}: {stream.unexplained()} unaccounted"
                )
        await self._halves(store, sight, done)
        if go_on and ledger.streams:
            await self._go_on(store, ledger, sight)

    async def _halves(self, store: Store, sight: Sight, done: int) -> None:
        queries = " union all ".join(
            f"select '{what}', ({query})" for what, query in _HALF.items()
        )
        text = queries.format(done=done, last=sight.next_outbox - 1)
        for what, number in await store.query(text):
            if number:
                sight.wrong.append(f"{what}: {number}")

    async def _go_on(self, store: Store, ledger: Ledger, sight: Sight) -> None:
        clock = ScriptedClock("after")
        ingest = Ingest(ledger, self._nodes, clock, silent, commit_interval_s=60, commit_rows=500)
        stream = max(ledger.streams.values(), key=lambda one: one.stream_no)
        one = ScriptedBin(stream.node, self._seed)
        one.epoch = stream.epoch
        outcome = ingest.advert(one.heard(stream.last_seq + 1, clock.boottime_ms()))
        await ingest.commit()
        rows = await store.query("select max(outbox_no) from outbox")
        if outcome.kind != ACCEPTED or rows[0][0] != sight.next_outbox or stream.unexplained():
            sight.wrong.append("does not go on with the next reading")


def broken(sight: Sight, promise: Promise, coming: str) -> list[str]:
    """Return what of a promise a state breaks; coming: the state behind what was begun."""
    found = list(sight.wrong)
    if sight.put_aside and (promise.opened or not promise.damaged):
        found.append("taken for damaged and put aside")
    if not promise.opened or found:
        return found
    if sight.gw_epoch != promise.gw_epoch:
        found.append("another gw_epoch")
    allowed = {promise.committed, coming} if promise.begun else {promise.committed}
    if sight.fingerprint not in allowed:
        found.append("not what was committed")
    for stream_no, seq in promise.acked.items():
        if sight.accounted.get(stream_no, 0) < seq:
            found.append(f"stream {stream_no}: acked up to {seq}, which is not there")
    if sight.next_outbox <= promise.handed:
        found.append(f"outbox number {sight.next_outbox} comes back")
    for outbox_no in sight.passed:
        if outbox_no > promise.done and outbox_no not in promise.ended:
            found.append(f"outbox row {outbox_no} is done and was never acknowledged")
    return found
