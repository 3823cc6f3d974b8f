"""A group of gateways that hear the same nodes: the shell around leases and progress.

Rule: what is claimed is stored before it is said; what peers say is taken in the order in which
the broker gave it, acknowledged, and never believed beyond docs/mqtt-topics.md. Leases are for
BLE nodes only: a lamp on a bus belongs to the gateway that has the bus, a Wi-Fi node to the one
whose broker it knows.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from kerb_gateway.clock import Clock
from kerb_gateway.errors import StoreFull
from kerb_gateway.ingest import Ingest
from kerb_gateway.leases import ELSEWHERE, HERE, NOBODY, Leases, wait_ms
from kerb_gateway.model import Node, Stream
from kerb_gateway.peers import (
    GENERATION_MAX,
    OLDER_MAX,
    Claims,
    Progress,
    pack_claims,
    pack_progress,
    unpack_claims,
    unpack_progress,
)
from kerb_gateway.progress import Deliveries
from kerb_gateway.store import leases as generations
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.topics import OWNED, PROGRESS, Topics

_TICKS_A_LEASE = 40
_TICK_MAX_S = 1.0
_RUN_BYTES = 6

Log = Callable[..., Any]


class Message(Protocol):
    """An MQTT message as the uplink hands it over."""

    @property
    def topic(self) -> str:
        """The topic it came on."""

    @property
    def payload(self) -> bytes:
        """Its content."""


class Broker(Protocol):
    """What the group needs of the uplink."""

    def retain(self, topic: str, payload: bytes, expiry_s: int | None = None) -> None:
        """Publish what the broker is to keep."""

    def ack(self, incoming: Any) -> None:
        """Acknowledge a message."""


@dataclass(frozen=True)
class Terms:
    """lease_s and the rest of the [group] table."""

    lease_s: float
    unheard_s: float
    backup: bool


class Group:
    """This gateway's part in its group."""

    def __init__(
        self,
        terms: Terms,
        gateway: str,
        nodes: Iterable[Node],
        known: dict[str, int],
        *,
        store: Store,
        ledger: Ledger,
        ingest: Ingest,
        broker: Broker,
        topics: Topics,
        clock: Clock,
        log: Log,
        forgetful: bool = False,
    ) -> None:
        """known: the highest generation known of each node, from the store; forgetful: which may
        have known more before a restore.
        """
        self._terms = terms
        self._store, self._ledger, self._ingest = store, ledger, ingest
        self._broker, self._topics, self._clock, self._log = broker, topics, clock, log
        self._nodes = [node.node_id for node in nodes if node.leased]
        self._leases = Leases(
            gateway,
            secrets.token_hex(_RUN_BYTES),
            {node: known.get(node, 0) for node in self._nodes},
            lease_ms=round(terms.lease_s * 1000),
            unheard_ms=round(terms.unheard_s * 1000),
            backup=terms.backup,
            forgetful=forgetful,
        )
        self._deliveries = Deliveries()
        self._said: dict[str, tuple[int, Progress | None]] = {}  # node -> (when, what)
        self._mine: set[str] = set()
        self._spent: set[str] = set()
        self._stored = dict(known)

    # --- what can be asked ---

    def owned(self, node_id: str) -> bool:
        """Tell whether this gateway may connect to the node now."""
        return self._leases.owned(node_id, self._clock.boottime_ms())

    def ours(self, node_id: str) -> bool:
        """Tell whether a node is this gateway's business now: owned, or without any lease."""
        return node_id not in self._nodes or self.owned(node_id)

    def speaks_for(self, node_id: str) -> bool:
        """Tell whether this gateway says that a node is silent: its last owner, or its only."""
        if node_id not in self._nodes:
            return True
        return self._leases.speaks_for(node_id, self._clock.boottime_ms())

    def place(self, node_id: str) -> str:
        """Return whose business a configured node is now: HERE, ELSEWHERE or NOBODY's yet."""
        if self.ours(node_id):
            return HERE
        taken = self._leases.taken(node_id, self._clock.boottime_ms())
        return ELSEWHERE if taken else NOBODY

    # --- what happens ---

    def heard(self, node_id: str, rssi: int) -> None:
        """An advert of the node was heard."""
        self._leases.heard(node_id, rssi, self._clock.boottime_ms())

    def reached(self, node_id: str, well: bool) -> None:
        """A visit to the node ended."""
        self._leases.reached(node_id, self._clock.boottime_ms(), well=well)

    def connection(self, connected: bool, kept: bool) -> None:
        """The broker came, with or without what it knew of us, or went."""
        if connected:
            self._leases.connected(self._clock.boottime_ms(), kept=kept)
        else:
            self._leases.disconnected(self._clock.boottime_ms())

    def take(self, incoming: Message) -> None:
        """Take what a gateway of the site says, an echo of this one too."""
        leaf, gateway, node = self._topics.said_by(incoming.topic)
        try:
            if leaf == OWNED and node is None and incoming.payload:
                claims = unpack_claims(incoming.payload)
                if not self._leases.received(gateway, claims, self._clock.boottime_ms()):
                    self._ledger.count("claims of too many gateways")
            elif leaf == PROGRESS and node is not None and incoming.payload:
                self._take_progress(node, incoming.payload)
        except ValueError as error:
            self._ledger.count("group message malformed")
            self._log("group message malformed", topic=incoming.topic, why=str(error))
        self._broker.ack(incoming)

    def _take_progress(self, node: str, payload: bytes) -> None:
        if node not in self._nodes:
            self._ledger.count("progress of a node that is not shared here")
            return
        progress = unpack_progress(node, payload)
        self._leases.seen(node, progress.generation)
        self._ingest.elsewhere.hear_of(progress)

    # --- what is said ---

    async def run(self) -> None:
        """Claim, renew and tell for ever."""
        tick_s = min(_TICK_MAX_S, self._terms.lease_s / _TICKS_A_LEASE)
        while True:
            await asyncio.sleep(tick_s)
            try:
                await self._claim(self._leases.tick(self._clock.boottime_ms()))
                await self._tell()
            except StoreFull:
                continue  # nothing is claimed that cannot be stored; ingest says the rest
            self._note_changes()

    async def _claim(self, claims: Claims | None) -> None:
        if claims is None:
            return
        risen = {
            node: generation
            for node, generation in claims.generations.items()
            if generation > self._stored.get(node, 0)
        }
        await generations.save(self._store, risen)
        self._stored |= risen
        self._say(claims)

    def _say(self, claims: Claims) -> None:
        # No longer than it can matter: a gateway that is away for days is spared the old ones.
        expiry_s = wait_ms(claims.lease_ms) // 1000 + 1
        self._broker.retain(self._topics.owned, pack_claims(claims), expiry_s)

    async def _tell(self) -> None:
        """Say of the owned nodes how far they have come, at most twice a lease."""
        every = self._streams()
        said_of = [one for streams in every.values() for one in streams]
        self._deliveries.look(said_of, self._ledger.last_outbox_no, self._ledger.outbox.done)
        now_ms = self._clock.boottime_ms()
        for node, (*older, newest) in every.items():
            if not self._leases.owned(node, now_ms):
                continue
            progress = Progress(
                node,
                self._leases.generation(node),
                newest.epoch,
                newest.last_seq,
                self._deliveries.delivered(newest),
                tuple((one.epoch, self._deliveries.delivered(one)) for one in older),
            )
            if not self._worth_saying(progress, now_ms):
                continue
            if self._new_epoch(progress):
                await self._ingest.commit()  # the end of the old epoch must be durable first
            self._said[node] = (now_ms, progress)
            self._broker.retain(self._topics.of(node, PROGRESS), pack_progress(progress))

    def _streams(self) -> dict[str, list[Stream]]:
        """Return each BLE node's newest streams, oldest first, as many as are spoken of."""
        every: dict[str, list[Stream]] = {}
        for stream in sorted(self._ledger.streams.values(), key=lambda one: one.stream_no):
            if stream.node.leased:
                every.setdefault(stream.node.node_id, []).append(stream)
        return {node: streams[-1 - OLDER_MAX :] for node, streams in every.items()}

    def _worth_saying(self, progress: Progress, now_ms: int) -> bool:
        """Tell whether there is news: a new epoch at once, else at most twice a lease."""
        said_ms, said = self._said.get(progress.node, (0, None))
        if self._new_epoch(progress):
            return True
        return said != progress and now_ms - said_ms >= self._terms.lease_s * 500

    def _new_epoch(self, progress: Progress) -> bool:
        _, said = self._said.get(progress.node, (0, None))
        return said is None or said.epoch != progress.epoch

    def _note_changes(self) -> None:
        """Log what has been won and lost."""
        mine = {node for node in self._nodes if self.owned(node)}
        for node in sorted(mine - self._mine):
            self._log("node owned", node=node, generation=self._leases.generation(node))
        for node in sorted(self._mine - mine):
            self._log("node no longer owned", node=node)
        self._mine = mine
        spent = {one for one in self._nodes if self._leases.generation(one) >= GENERATION_MAX}
        for node in sorted(spent - self._spent):
            self._log("node can be claimed no more", node=node, generation=GENERATION_MAX)
        self._spent = spent

    def leave(self) -> None:
        """At a clean end: let others claim at once."""
        claims = self._leases.leave(self._clock.boottime_ms())
        if claims is not None:
            self._say(claims)
