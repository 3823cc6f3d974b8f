"""Which gateway of a group owns which node: a pure state machine, events in, a message out.

Rule: a gateway owns a node only while its newest confirmed claim is younger than the lease by its
own clock; a claim is confirmed by its own echo through the broker, never by a PUBACK, because all
claims that the broker took before it have then been seen; a lease is counted from the moment the
claim was made, and by everyone else from the moment it was heard, and a twentieth longer. So no
two gateways own one node at the same time while their clocks run true within 2 % and the broker
keeps its order; docs/decisions/0011-leases.md has the proof and what happens if they did.

No clock, no I/O: times are milliseconds of a clock that never jumps, each gateway's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kerb_gateway.peers import GENERATION_MAX, Claims

_WAIT_PCT = 105  # what the others wait; (1 + r) / (1 - r) <= 1.05 holds for clocks off by r = 2 %
_RENEWALS_A_LEASE = 3
_SPREAD_PART = 10  # the weakest signal claims a tenth of a lease after the strongest
_QUEUE_PART = 10  # how long what was queued may take to come, as a part of a lease
_STRONG_DBM, _WEAK_DBM = -40, -100
_NUMBERS_KEPT = 64  # messages whose echo may still come
_STRUGGLES = 5  # failed sessions in a row that are worth trying another gateway's antenna
GATEWAYS_MAX = 64  # that are remembered at a time: topics name them, and anybody may
HERE, ELSEWHERE, NOBODY = "here", "elsewhere", "nobody"  # whose business a node is
_REST_LEASES = 3  # how long a gateway that could not reach a node, or is told nothing, holds back


@dataclass
class _Claim:
    """A claim of this gateway; since_ms: when the newest message that counts was made."""

    generation: int
    since_ms: int
    confirmed: bool = False


@dataclass
class _Other:
    """Another gateway's claim, to be respected until until_ms by this gateway's clock."""

    generation: int
    until_ms: int


@dataclass
class _Node:
    """What is known of one node."""

    generation: int  # the highest that anyone was heard to use
    mine: int = 0  # the highest that this gateway has used
    whose: bool = True  # it is known who has used the highest: a claim said so
    claim: _Claim | None = None
    others: dict[str, _Other] = field(default_factory=dict)
    heard_ms: int | None = None
    rssi: int = _WEAK_DBM
    claim_at_ms: int | None = None
    struggles: int = 0
    rest_until_ms: int | None = None

    def taken(self, now_ms: int) -> bool:
        """Tell whether another gateway may still own it."""
        return any(now_ms < other.until_ms for other in self.others.values())


def wait_ms(lease_ms: int) -> int:
    """Return how long the others respect a claim after they heard it."""
    return lease_ms * _WAIT_PCT // 100 + 1


def claim_delay_ms(rssi: int, lease_ms: int, *, backup: bool) -> int:
    """Return how long to leave a free node to gateways that hear it better."""
    weakness = min(max(rssi, _WEAK_DBM), _STRONG_DBM)
    part = (_STRONG_DBM - weakness) / (_STRONG_DBM - _WEAK_DBM)
    return round(part * lease_ms / _SPREAD_PART) + (lease_ms // 2 if backup else 0)


class Leases:
    """One gateway's view of its group."""

    def __init__(
        self,
        gateway: str,
        run: str,
        generations: dict[str, int],
        *,
        lease_ms: int,
        unheard_ms: int,
        backup: bool = False,
        forgetful: bool = False,
    ) -> None:
        """run: a word that no earlier start of this gateway used; generations: of every node, the
        highest that this gateway has used (0: none); unheard_ms: a node that was not heard for
        so long is given up; forgetful: a restore may have lost some of its generations.
        """
        self._gateway, self._run = gateway, run
        self._lease_ms, self._unheard_ms, self._backup = lease_ms, unheard_ms, backup
        self._forgetful = forgetful
        self._longest_ms = lease_ms  # of all leases heard of
        self._nodes = {name: _Node(number, number) for name, number in generations.items()}
        self._listen_until_ms = 0
        self._connected = False
        self._connected_ms = 0
        self._gone_ms: int | None = None  # when the last connection ended, if that was noticed
        self._number = 0
        self._said_ms: int | None = None
        self._changed = False
        self._sent: dict[int, tuple[int, dict[str, int]]] = {}
        self._newest: dict[str, tuple[str, int]] = {}  # gateway -> (run, number)

    # --- what can be asked ---

    def owned(self, node: str, now_ms: int) -> bool:
        """Tell whether this gateway may connect to the node now."""
        state = self._nodes.get(node)
        if state is None or state.claim is None or not state.claim.confirmed:
            return False
        return now_ms < state.claim.since_ms + self._lease_ms and not state.taken(now_ms)

    def taken(self, node: str, now_ms: int) -> bool:
        """Tell whether another gateway is known to own the node, or may still do so."""
        state = self._nodes.get(node)
        return state is not None and state.taken(now_ms)

    def speaks_for(self, node: str, now_ms: int) -> bool:
        """Tell whether it falls to this gateway to say that the node is silent.

        Nobody owns a node that nobody hears; then the last that did still answers for it, and
        each that knows it where none ever did. Who may have forgotten that it was the last speaks
        too: said twice is better than not at all.
        """
        state = self._nodes.get(node)
        if state is None or state.taken(now_ms):
            return False
        if not state.generation or not state.whose:
            return self._connected and now_ms >= self._listen_until_ms
        return 0 < state.mine == state.generation

    def generation(self, node: str) -> int:
        """Return the highest generation known of the node."""
        return self._nodes[node].generation

    # --- events ---

    def connected(self, now_ms: int, *, kept: bool) -> None:
        """The broker is there; kept: it kept the session, so that no message was missed.

        Nothing new is claimed before every live owner must have been heard; after a short
        absence, before what the broker has queued must have come.
        """
        briefly = self._gone_ms is not None and now_ms - self._gone_ms < self._lease_ms
        heard_all_ms = now_ms + wait_ms(self._longest_ms)
        if kept and briefly:
            queue_ms = now_ms + self._lease_ms // _QUEUE_PART
            heard_all_ms = min(heard_all_ms, max(self._listen_until_ms, queue_ms))
        self._listen_until_ms = heard_all_ms
        self._connected, self._connected_ms, self._gone_ms = True, now_ms, None
        if not kept:
            for state in self._nodes.values():
                self._drop(state)

    def disconnected(self, now_ms: int) -> None:
        """The broker is away: leases run out, nothing is claimed or renewed."""
        self._connected, self._gone_ms = False, now_ms

    def heard(self, node: str, rssi: int, now_ms: int) -> None:
        """An advert of the node was heard."""
        state = self._nodes.get(node)
        if state is not None:
            state.rssi = rssi if state.heard_ms is None else (3 * state.rssi + rssi) // 4
            state.heard_ms = now_ms

    def reached(self, node: str, now_ms: int, *, well: bool) -> None:
        """A session with the node ended; who hears a node but cannot reach it lets go of it."""
        state = self._nodes.get(node)
        if state is None:
            return
        state.struggles = 0 if well else state.struggles + 1
        if state.struggles >= _STRUGGLES:
            state.struggles = 0
            state.rest_until_ms = now_ms + _REST_LEASES * self._lease_ms
            self._drop(state)

    def received(self, gateway: str, claims: Claims, now_ms: int) -> bool:
        """A message of claims came from the broker, an own one too; False: from one too many."""
        if gateway == self._gateway:
            if claims.run == self._run:
                self._confirm(claims.number)
            for node, number in claims.generations.items():
                self._used(node, number)
            return True
        if not self._room_for(gateway, now_ms):
            return False
        run, number = self._newest.get(gateway, ("", 0))
        if claims.run == run and claims.number <= number:
            return True  # sent again after newer ones
        self._newest[gateway] = (claims.run, claims.number)
        self._longest_ms = max(self._longest_ms, claims.lease_ms)
        for node, state in self._nodes.items():
            generation = claims.generations.get(node)
            if generation is None:
                state.others.pop(gateway, None)
            else:
                self._contend(state, gateway, generation, now_ms, claims.lease_ms)
        return True

    def _room_for(self, gateway: str, now_ms: int) -> bool:
        """Tell whether a gateway can be remembered; one that holds nothing makes room for it."""
        if gateway in self._newest or len(self._newest) < GATEWAYS_MAX:
            return True
        idle = next((one for one in self._newest if not self._holds(one, now_ms)), None)
        if idle is None:
            return False
        del self._newest[idle]
        for state in self._nodes.values():
            state.others.pop(idle, None)
        return True

    def _holds(self, gateway: str, now_ms: int) -> bool:
        every = (state.others.get(gateway) for state in self._nodes.values())
        return any(one is not None and now_ms < one.until_ms for one in every)

    def seen(self, node: str, generation: int) -> None:
        """A generation stands somewhere at the broker: a restored store may not know of it."""
        state = self._nodes.get(node)
        if state is not None and generation > state.generation:
            state.generation = generation
            state.whose = not self._forgetful  # its owner may have been this gateway

    def _used(self, node: str, generation: int) -> None:
        """This gateway has claimed with that generation, maybe in a life that a restore ended."""
        self.seen(node, generation)
        if (state := self._nodes.get(node)) is not None:
            state.mine = max(state.mine, generation)
            state.whose = state.whose or state.mine == state.generation

    def _confirm(self, number: int) -> None:
        """An own message has come back: what it claims is in force, from when it was made."""
        made_ms, generations = self._sent.get(number, (0, {}))
        for node, generation in generations.items():
            claim = self._nodes[node].claim
            if claim is None or claim.generation != generation:
                continue
            claim.since_ms = made_ms if not claim.confirmed else max(claim.since_ms, made_ms)
            claim.confirmed = True

    def _contend(
        self, state: _Node, gateway: str, generation: int, now_ms: int, lease_ms: int
    ) -> None:
        """Another gateway claims the node: the higher generation wins, then the earlier one."""
        self._expire(state, now_ms)
        state.whose = state.whose or generation >= state.generation
        state.generation = max(state.generation, generation)
        claim = state.claim
        if claim is not None and claim.confirmed and generation <= claim.generation:
            return  # it will see our claim before its own, and yield
        if claim is not None and generation >= claim.generation:
            self._drop(state)
        state.others[gateway] = _Other(generation, now_ms + wait_ms(lease_ms))

    def _drop(self, state: _Node) -> None:
        if state.claim is not None:
            state.claim = None
            self._changed = True

    def _expire(self, state: _Node, now_ms: int) -> None:
        """A claim that was not renewed in time is over, and never renewed: it is claimed anew.

        Who is never told of its own claim (a broker's access rules) must not keep others waiting.
        """
        if state.claim is not None and now_ms >= state.claim.since_ms + self._lease_ms:
            if self._untold(state.claim):
                self._listen_until_ms = now_ms + _REST_LEASES * self._lease_ms
            self._drop(state)

    def _untold(self, claim: _Claim) -> bool:
        """Tell whether this connection has carried a claim up and never brought it back."""
        held = self._connected and claim.since_ms >= self._connected_ms
        return held and not claim.confirmed

    # --- what to say ---

    def tick(self, now_ms: int) -> Claims | None:
        """Return what must be said now, or None.

        The generations in it must be stored before it is published.
        """
        for state in self._nodes.values():
            self._expire(state, now_ms)
            if state.heard_ms is None or now_ms >= state.heard_ms + self._unheard_ms:
                self._drop(state)
        if not self._connected:
            return None
        if now_ms >= self._listen_until_ms:
            for state in self._nodes.values():
                self._claim(state, now_ms)
        if self._changed or self._renewal_due(now_ms):
            return self._say(now_ms)
        return None

    def _claim(self, state: _Node, now_ms: int) -> None:
        """Claim a node that is free and heard, after leaving it to those who hear it better."""
        resting = state.rest_until_ms is not None and now_ms < state.rest_until_ms
        unheard = state.heard_ms is None or now_ms >= state.heard_ms + self._unheard_ms
        # Without a higher number to claim with there is no claim: an equal one ends no old one.
        spent = state.generation >= GENERATION_MAX
        if state.claim is not None or spent or resting or unheard or state.taken(now_ms):
            state.claim_at_ms = None
            return
        if state.claim_at_ms is None:
            delay_ms = claim_delay_ms(state.rssi, self._lease_ms, backup=self._backup)
            state.claim_at_ms = now_ms + delay_ms
        if now_ms >= state.claim_at_ms:
            state.claim_at_ms = None
            state.generation += 1
            state.mine = state.generation
            state.claim = _Claim(state.generation, now_ms)
            self._changed = True

    def _renewal_due(self, now_ms: int) -> bool:
        if not any(state.claim for state in self._nodes.values()):
            return False
        return (
            self._said_ms is None or now_ms - self._said_ms >= self._lease_ms // _RENEWALS_A_LEASE
        )

    def _say(self, now_ms: int) -> Claims:
        generations = {
            name: state.claim.generation
            for name, state in self._nodes.items()
            if state.claim is not None
        }
        self._number += 1
        self._said_ms, self._changed = now_ms, False
        self._sent[self._number] = (now_ms, generations)
        self._sent.pop(self._number - _NUMBERS_KEPT, None)
        return Claims(self._run, self._number, self._lease_ms, generations)

    def leave(self, now_ms: int) -> Claims | None:
        """Give everything up, at a clean end: what to say so that others need not wait."""
        for state in self._nodes.values():
            self._drop(state)
        if not self._connected or not self._changed:
            return None
        return self._say(now_ms)
