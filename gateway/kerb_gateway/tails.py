"""Open-ended losses: nodes that fell silent, and nodes that the configuration names no more.

Rule: a tail is said once and stands until the node is heard again, when ingest closes it. Silence
is time without contact on the clock that does not jump, and only time in which a gateway ran: what
it knows of a silence is stored by the hour, so that restarts do not begin it anew.

The third kind of tail, a new epoch, is ingest's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection
from operator import itemgetter
from typing import Any

from kerb_gateway.clock import Clock
from kerb_gateway.model import Node, Stream
from kerb_gateway.store.database import Many, Store
from kerb_gateway.store.ledger import Ledger

_LOOK_S = 60.0
_LOOKS_A_SILENCE = 8
_NOTE_S = 3600.0
_SHORT_S = 1800.0  # a silence that is not worth a row
_GAPS = "gaps of retired "  # meta: and the node_id; how many numbers were said to be missing
_RANGE = ("epoch", "first_seq", "last_seq")
_RANGES_SAID = 64  # of one node's open gaps

Log = Callable[..., Any]


class Tails:
    """Looks at each node's newest stream now and then."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        commit: Callable[[], Awaitable[None]],
        clock: Clock,
        log: Log,
        nodes: list[Node],
        *,
        silent_after_s: float,
        ours: Callable[[str], bool] | None = None,
    ) -> None:
        """silent_after_s: for nodes that have no limit of their own; ours: whether a node's
        silence is ours to say, in a group of gateways.
        """
        self._ours = ours or (lambda node_id: True)
        self._store = store
        self._ledger = ledger
        self._commit = commit
        self._clock = clock
        self._log = log
        self._nodes = nodes
        self._limit_s = silent_after_s
        self._began_ms = clock.boottime_ms()
        self._before_s: dict[int, float] = {}  # stream_no -> silence before this process
        self._noted = False  # the database holds silences

    async def begin(self) -> None:
        """Go on with the silences that an earlier process knew; say what is open of retired nodes.

        Nobody waits for the COMMIT: a gateway must also start on a full disk.
        """
        rows = await self._store.query("select stream_no, silent_s from silences")
        self._before_s = {stream_no: float(silent_s) for stream_no, silent_s in rows}
        self._mark(self._before_s)
        await self._retire()
        await self._say_gaps()

    async def run(self) -> None:
        """Look for ever."""
        shortest_s = min([self._limit_s, *map(self._limit_of, self._nodes)])
        look_s = min(_LOOK_S, shortest_s / _LOOKS_A_SILENCE)
        noted_ms = self._clock.boottime_ms()
        while True:
            await asyncio.sleep(look_s)
            await self.look()
            if self._clock.boottime_ms() - noted_ms >= _NOTE_S * 1000:
                noted_ms = self._clock.boottime_ms()
                self.note()

    def _limit_of(self, node: Node) -> float:
        return self._limit_s if node.silent_after_s is None else node.silent_after_s

    def _watched(self) -> list[Stream]:
        """Return each node's newest stream and its living one, which a recording may have aged.

        Those whose tail stands are left out.
        """
        newest: dict[str, Stream] = {}
        living: dict[str, Stream] = {}
        latest_ms: dict[str, int] = {}
        for stream in self._ledger.streams.values():
            node_id = stream.node.node_id
            if node_id not in newest or stream.stream_no > newest[node_id].stream_no:
                newest[node_id] = stream
            if stream.contact_ms is not None and stream.contact_ms >= latest_ms.get(node_id, 0):
                latest_ms[node_id], living[node_id] = stream.contact_ms, stream
        watched = {one.stream_no: one for one in (*newest.values(), *living.values())}
        return [stream for stream in watched.values() if stream.tail_no is None]

    def silent_s(self, stream: Stream) -> float:
        """Return for how long a stream's node was not heard while a gateway ran."""
        now_ms = self._clock.boottime_ms()
        if stream.contact_ms is not None:
            return (now_ms - stream.contact_ms) / 1000
        return (now_ms - self._began_ms) / 1000 + self._before_s.get(stream.stream_no, 0.0)

    async def look(self) -> None:
        """Say the tail of each node that has been silent for too long."""
        mine = [stream for stream in self._watched() if self._ours(stream.node.node_id)]
        silent = [s for s in mine if self.silent_s(s) >= self._limit_of(s.node)]
        for stream in silent:
            self._open(stream, "silent")
        if silent:
            await self._commit()

    def _open(self, stream: Stream, why: str) -> None:
        self._ledger.open_tail(stream, self._clock.now())
        self._log(
            "tail unknown",
            node=stream.node.node_id,
            epoch=stream.epoch,
            first_seq=stream.last_seq + 1,
            why=why,
        )

    def note(self) -> None:
        """Let the next commit store the silences that are worth it."""
        silences = {stream.stream_no: int(self.silent_s(stream)) for stream in self._watched()}
        silences = {no: silent_s for no, silent_s in silences.items() if silent_s >= _SHORT_S}
        if not silences and not self._noted:
            return
        self._mark(silences)
        self._ledger.add(("delete from silences", []))
        rows = [[stream_no, silent_s] for stream_no, silent_s in silences.items()]
        self._ledger.add(Many("insert into silences (stream_no, silent_s) values (?,?)", rows))

    def _mark(self, silences: Collection[int]) -> None:
        """Remember which streams' silences the database holds."""
        self._noted = bool(silences)
        for stream in self._ledger.streams.values():
            stream.silence_noted = stream.stream_no in silences

    async def _retire(self) -> None:
        """Say the tails of nodes that are in the database and no more in the configuration."""
        configured = {node.node_no for node in self._nodes}
        rows = await self._store.query(
            "select node_no, max(stream_no) from streams group by node_no having max(stream_no) "
            "not in (select stream_no from losses where last_seq is null and closed_seq is null)"
        )
        for node_no, stream_no in rows:
            if node_no not in configured:
                self._open(await self._ledger.stored_stream(stream_no), "retired")

    async def _say_gaps(self) -> None:
        """Say, once, what is missing of nodes that nobody asks any more; they may come back."""
        rows = await self._store.query(
            "select node_id, epoch, first_seq, gaps.last_seq from gaps "
            "join streams using (stream_no) join nodes using (node_no) "
            "order by node_no, stream_no, first_seq"
        )
        said = dict(
            await self._store.query("select key, value from meta where key like ?", [f"{_GAPS}%"])
        )
        configured = {node.node_id for node in self._nodes}
        retired = [row for row in rows if row[0] not in configured]
        for node_id, gaps in itertools.groupby(retired, key=itemgetter(0)):
            ranges = [dict(zip(_RANGE, gap[1:], strict=True)) for gap in gaps]
            numbers = sum(one["last_seq"] - one["first_seq"] + 1 for one in ranges)
            if said.get(_GAPS + node_id) == str(numbers):
                continue
            alarm = {"what": "retired with open gaps", "numbers": numbers, "gaps": len(ranges)}
            self._log(alarm["what"], node=node_id, numbers=numbers, gaps=len(ranges))
            self._ledger.add_alarm(node_id, alarm | {"ranges": ranges[:_RANGES_SAID]})
            row = [_GAPS + node_id, str(numbers)]
            self._ledger.add(("insert or replace into meta values (?,?)", row))
