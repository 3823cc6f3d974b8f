"""A broker and gateways around the lease machine, in simulated time, from one seed.

The broker takes one message after the other and hands them to each subscriber in that order;
everything else may go wrong: delays, cuts with and without a kept session, messages sent twice,
gateways that freeze, die and return without memory but for their generations, and clocks that run
wrong by up to RATE_ERROR and begin anywhere.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from kerb_gateway.leases import Leases
from kerb_gateway.peers import Claims, pack_claims, unpack_claims

RATE_ERROR = 0.02
LEASE_MS = 20_000
STEP_MS = 100
DELAY_MS = 1500  # the longest way to the broker, and from it
Message = tuple[str, bytes]


@dataclass
class Gateway:
    """One machine: its clock, its process, and its connection."""

    name: str
    nodes: tuple[str, ...]
    rng: random.Random
    rate: float
    offset_ms: int
    backup: bool = False
    stored: dict[str, int] = field(default_factory=dict)  # what its database has
    leases: Leases | None = None
    starts: int = 0
    linked: bool = False
    frozen: bool = False
    unheard: bool = False  # the broker takes what it says and tells it nothing
    inbox: deque[tuple[float, Message]] = field(default_factory=deque)
    outbox: deque[tuple[float, bytes]] = field(default_factory=deque)
    unacked: deque[bytes] = field(default_factory=deque)  # sent again on the next connection
    cut_at_ms: float = 0.0

    def clock(self, now_ms: float) -> int:
        """Its own clock."""
        return int(self.offset_ms + now_ms * self.rate)

    def start(self) -> None:
        """Begin a process, with what the database kept."""
        self.starts += 1
        generations = {node: self.stored.get(node, 0) for node in self.nodes}
        self.leases = Leases(
            self.name,
            f"{self.name}-{self.starts}",
            generations,
            lease_ms=LEASE_MS,
            unheard_ms=100 * LEASE_MS,
            backup=self.backup,
        )

    def kill(self) -> None:
        """SIGKILL: memory and connection are gone."""
        self.leases, self.frozen = None, False
        self.linked = False
        self.unacked.clear()
        self.outbox.clear()

    def owns(self, node: str, now_ms: float) -> bool:
        """Whether it believes so at this moment."""
        return self.leases is not None and self.leases.owned(node, self.clock(now_ms))


class World:
    """Steps everything; `overlap_ms` is how long two gateways owned one node together."""

    def __init__(self, seed: int, gateways: int = 3, nodes: int = 2, *, backup: bool = False):
        self.rng = random.Random(seed)
        self.nodes = tuple(f"a4cf1200000{n}" for n in range(nodes))
        self.now_ms = 0.0
        self.gateways = [
            Gateway(
                f"gw{n}",
                self.nodes,
                self.rng,
                1 + self.rng.uniform(-RATE_ERROR, RATE_ERROR),
                self.rng.randrange(10**9),
                backup and n > 0,
            )
            for n in range(gateways)
        ]
        self.retained: dict[str, bytes] = {}
        self.sessions: set[str] = set()
        self.overlap_ms = 0
        self.owned_ms: dict[str, int] = dict.fromkeys(self.nodes, 0)
        self.changes = 0
        self._last: dict[str, str] = {}
        for gateway in self.gateways:
            gateway.start()
            self.link(gateway)

    # --- faults ---

    def link(self, gateway: Gateway) -> None:
        """Connect; the broker keeps what it has for a kept session, and hands on the retained."""
        if gateway.linked or gateway.leases is None or gateway.frozen:
            return
        gateway.linked = True
        kept = gateway.name in self.sessions
        self.sessions.add(gateway.name)
        if not kept:
            gateway.inbox.clear()
        gateway.leases.connected(gateway.clock(self.now_ms), kept=kept)
        if gateway.unheard:
            self.sessions.discard(gateway.name)
            gateway.inbox.clear()
            return
        for name, payload in self.retained.items():
            self._deliver(gateway, (name, payload))
        for payload in gateway.unacked:
            self._send(gateway, payload)

    def cut(self, gateway: Gateway, *, told: bool) -> None:
        """Break the connection; what was on its way up may or may not have come through.

        told: the gateway notices at once; else it goes on in the belief that it is connected.
        """
        if not gateway.linked:
            return
        gateway.linked = False
        arrived = self.rng.randint(0, len(gateway.outbox))
        for _, payload in list(gateway.outbox)[:arrived]:
            self._take(gateway.name, payload)
        gateway.outbox.clear()
        if told and gateway.leases is not None:
            gateway.leases.disconnected(gateway.clock(self.now_ms))

    def wipe_broker(self) -> None:
        """The broker starts anew without anything of before."""
        for gateway in self.gateways:
            self.cut(gateway, told=True)
            gateway.inbox.clear()
        self.retained.clear()
        self.sessions.clear()

    # --- time ---

    def _deliver(self, gateway: Gateway, message: Message) -> None:
        at_ms = self.now_ms + self.rng.uniform(1, DELAY_MS)
        if gateway.inbox:
            at_ms = max(at_ms, gateway.inbox[-1][0])  # in order
        gateway.inbox.append((at_ms, message))
        if self.rng.random() < 0.1:
            gateway.inbox.append((at_ms, message))

    def _send(self, gateway: Gateway, payload: bytes) -> None:
        at_ms = self.now_ms + self.rng.uniform(1, DELAY_MS)
        if gateway.outbox:
            at_ms = max(at_ms, gateway.outbox[-1][0])
        gateway.outbox.append((at_ms, payload))

    def _take(self, name: str, payload: bytes) -> None:
        """The broker takes a message: this is the one order of things."""
        self.retained[name] = payload
        for gateway in self.gateways:
            if gateway.name in self.sessions:
                self._deliver(gateway, (name, payload))

    def step(self) -> None:
        """Let STEP_MS pass."""
        self.now_ms += STEP_MS
        for gateway in self.gateways:
            while gateway.linked and gateway.outbox and gateway.outbox[0][0] <= self.now_ms:
                payload = gateway.outbox.popleft()[1]
                self._take(gateway.name, payload)
                if self.rng.random() < 0.9 and payload in gateway.unacked:
                    gateway.unacked.remove(payload)  # else the PUBACK is lost: sent once more
        for gateway in self.gateways:
            if gateway.leases is not None and not gateway.frozen:
                self._run(gateway, gateway.leases)
        self._judge()

    def _run(self, gateway: Gateway, leases: Leases) -> None:
        clock = gateway.clock(self.now_ms)
        while gateway.linked and gateway.inbox and gateway.inbox[0][0] <= self.now_ms:
            name, payload = gateway.inbox.popleft()[1]
            leases.received(name, unpack_claims(payload), clock)
        if self.rng.random() < 0.1:
            for node in self.nodes:
                leases.heard(node, self.rng.randint(-95, -45), clock)
        say = leases.tick(clock)
        if say is not None:
            self._say(gateway, say)

    def _say(self, gateway: Gateway, say: Claims) -> None:
        gateway.stored |= say.generations
        payload = pack_claims(say)
        gateway.unacked.append(payload)
        while len(gateway.unacked) > 10:
            gateway.unacked.popleft()
        if gateway.linked:
            self._send(gateway, payload)

    def _judge(self) -> None:
        for node in self.nodes:
            owners = [one.name for one in self.gateways if one.owns(node, self.now_ms)]
            if len(owners) > 1:
                self.overlap_ms += STEP_MS
            if owners:
                self.owned_ms[node] += STEP_MS
                self.changes += owners[0] != self._last.get(node)
                self._last[node] = owners[0]

    def owned(self) -> bool:
        """Whether every node has an owner now."""
        return all(
            any(gateway.owns(node, self.now_ms) for gateway in self.gateways)
            for node in self.nodes
        )

    def run(self, for_ms: int) -> None:
        """Let time pass."""
        for _ in range(for_ms // STEP_MS):
            self.step()


def misfortune(world: World) -> None:
    """One random fault, or the end of one."""
    rng, gateway = world.rng, world.rng.choice(world.gateways)
    dice = rng.random()
    if dice < 0.25:
        world.cut(gateway, told=rng.random() < 0.5)
    elif dice < 0.70:
        if rng.random() < 0.1 and not gateway.linked:
            world.sessions.discard(gateway.name)
        world.link(gateway)
    elif dice < 0.76:
        world.cut(gateway, told=rng.random() < 0.5)
        gateway.frozen = True
    elif dice < 0.85:
        gateway.frozen = False
    elif dice < 0.91:
        world.cut(gateway, told=False)
        gateway.kill()
    elif dice < 0.99:
        if gateway.leases is None:
            gateway.start()
            world.link(gateway)
    else:
        world.wipe_broker()


def mend(world: World, *, dead: int = 0) -> None:
    """End all faults but for `dead` gateways, which never return."""
    for gateway in world.gateways[:dead]:
        world.cut(gateway, told=True)
        gateway.kill()
        world.sessions.discard(gateway.name)
    for gateway in world.gateways[dead:]:
        gateway.frozen = False
        if gateway.leases is None:
            gateway.start()
        if not gateway.linked:
            world.link(gateway)
