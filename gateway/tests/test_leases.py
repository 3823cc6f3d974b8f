"""Leases: never two owners, and soon an owner again, whatever happens to clocks and messages."""

from __future__ import annotations

import pytest
from kerb_gateway.leases import GATEWAYS_MAX, Leases, claim_delay_ms, wait_ms
from kerb_gateway.peers import (
    GENERATION_MAX,
    Claims,
    Progress,
    pack_claims,
    pack_progress,
    unpack_claims,
    unpack_progress,
)
from lease_world import DELAY_MS, LEASE_MS, STEP_MS, World, mend, misfortune

NODE = "a4cf12000001"
SEEDS = 32
# After the last fault: a lease and a twentieth to listen, what is left of a dead owner's lease
# runs in that time, a tenth to leave it to the best antenna, and messages' ways; slow clocks.
AGAIN_OWNED_MS = round(1.5 * LEASE_MS / 0.98) + 6 * DELAY_MS


def machine(name: str = "gw1", generation: int = 0, *, forgetful: bool = False) -> Leases:
    return Leases(
        name, f"{name}-run", {NODE: generation}, lease_ms=1000, unheard_ms=50_000,
        forgetful=forgetful,
    )  # fmt: skip


def claims(
    generation: int, number: int = 1, *, run: str = "other", lease_ms: int = 1000
) -> Claims:
    return Claims(run, number, lease_ms, {NODE: generation} if generation else {})


def owner(now_ms: int = 2000) -> Leases:
    """A gateway that has just become the owner, generation 1."""
    leases = machine()
    leases.connected(0, kept=False)
    leases.heard(NODE, -40, now_ms)
    said = leases.tick(now_ms)
    assert said is not None
    assert said.generations == {NODE: 1}
    leases.received("gw1", said, now_ms + 10)
    assert leases.owned(NODE, now_ms + 10)
    return leases


def troubled(seed: int) -> World:
    """A world that has seen many faults."""
    world = World(seed)
    for _ in range(150):
        misfortune(world)
        world.run(world.rng.choice((STEP_MS, 3000, 10_000, 20_000)))
    return world


def test_who_speaks_for_a_node_that_nobody_has_ever_owned() -> None:
    """Each that knows it, once it would have heard of an owner; never one that heard of one."""
    leases = machine()
    leases.connected(0, kept=False)
    assert not leases.speaks_for(NODE, wait_ms(1000) - 1)
    assert leases.speaks_for(NODE, wait_ms(1000))
    leases.disconnected(3000)
    assert not leases.speaks_for(NODE, 3000)
    leases.connected(4000, kept=False)
    leases.received("gw2", claims(1), 4500)
    assert not leases.speaks_for(NODE, 100_000)


def test_after_a_restore_the_last_owner_still_speaks() -> None:
    """Its store has forgotten its last claims; the broker has kept them."""
    leases = machine(generation=5)
    leases.connected(0, kept=False)
    leases.received("gw1", claims(6, run="a life before"), 10)
    assert leases.speaks_for(NODE, 10)


def test_who_may_have_been_the_last_owner_speaks_until_another_claims() -> None:
    """Progress stands at the broker, of a node not heard lately: it is in nobody's claims."""
    leases, sure = machine(generation=3, forgetful=True), machine(generation=3)
    for one in (leases, sure):
        one.connected(0, kept=False)
        one.seen(NODE, 5)
    assert not leases.speaks_for(NODE, wait_ms(1000) - 1)  # an owner may yet be heard of
    assert leases.speaks_for(NODE, wait_ms(1000))
    assert not sure.speaks_for(NODE, wait_ms(1000))  # it would know
    leases.received("gw2", claims(5), 4500)
    assert not leases.speaks_for(NODE, 100_000)
    again = machine(generation=3, forgetful=True)
    again.connected(0, kept=False)
    again.received("gw1", claims(5, run="a life before"), 10)
    again.seen(NODE, 5)
    assert again.speaks_for(NODE, 10)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_never_two_owners_and_soon_one_again(seed: int) -> None:
    world = troubled(seed)
    assert world.changes > 3  # it is no quiet world
    mend(world, dead=seed % 3)
    world.run(AGAIN_OWNED_MS)
    assert world.owned()
    before = dict(world.owned_ms)
    world.run(3 * LEASE_MS)
    assert all(world.owned_ms[n] - before[n] == 3 * LEASE_MS for n in world.nodes)  # and stays
    assert world.overlap_ms == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_dead_owner_is_replaced_in_time_by_a_backup_too(seed: int) -> None:
    world = World(seed, gateways=2, nodes=1, backup=True)
    world.run(AGAIN_OWNED_MS)
    assert world.gateways[0].owns(world.nodes[0], world.now_ms)  # the backup held back
    mend(world, dead=1)
    world.run(AGAIN_OWNED_MS + LEASE_MS // 2)
    assert world.owned()
    assert world.overlap_ms == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_gateway_that_is_told_nothing_does_not_keep_the_others_waiting(seed: int) -> None:
    world = World(seed, gateways=2, nodes=1)
    world.wipe_broker()
    world.gateways[0].unheard = True
    mend(world)
    world.run(4 * LEASE_MS)
    assert world.gateways[1].owns(world.nodes[0], world.now_ms)
    assert world.overlap_ms == 0


def test_an_owner_that_cannot_renew_stops_by_its_own_clock() -> None:
    leases = owner()
    leases.disconnected(2100)
    assert leases.owned(NODE, 2999)
    assert not leases.owned(NODE, 3000)  # counted from the claim, not from its echo
    assert leases.tick(3000) is None
    leases.connected(9000, kept=True)
    leases.heard(NODE, -40, 9000)
    assert leases.tick(9001) == Claims("gw1-run", 2, 1000, {})  # it says that it let go
    assert leases.tick(10_000) is None  # still listening
    said = leases.tick(9000 + wait_ms(1000))
    assert said is not None
    assert said.generations == {NODE: 2}  # a lapsed claim is never renewed


def test_a_short_absence_neither_ends_a_lease_nor_makes_the_gateway_listen_for_long() -> None:
    leases = owner()
    leases.disconnected(2100)
    assert leases.tick(2500) is None
    leases.connected(2600, kept=True)
    renewed = leases.tick(2601)
    assert renewed is not None
    leases.received("gw1", renewed, 2610)
    assert leases.owned(NODE, 3500)
    leases.received("gw2", claims(2), 3510)
    leases.received("gw2", claims(0, 2), 3520)
    leases.disconnected(3530)
    leases.connected(3600, kept=True)
    assert leases.tick(3650) == Claims("gw1-run", 3, 1000, {})
    said = leases.tick(3700)
    assert said is not None
    assert said.generations == {NODE: 3}


def test_only_the_own_echo_of_this_run_confirms() -> None:
    leases = machine()
    leases.connected(0, kept=False)
    leases.heard(NODE, -40, 2000)
    said = leases.tick(2000)
    assert said is not None
    leases.received("gw1", claims(1, run="an earlier run"), 2001)
    assert not leases.owned(NODE, 2002)
    leases.received("gw1", said, 2003)
    assert leases.owned(NODE, 2004)
    assert not leases.owned(NODE, 3000)


def test_a_higher_generation_wins_and_an_old_one_does_not() -> None:
    leases = owner()
    leases.received("gw2", claims(1), 2100)
    assert leases.owned(NODE, 2101)  # it came after ours: the other one yields
    leases.received("gw2", claims(2, 2), 2200)
    assert not leases.owned(NODE, 2201)
    assert leases.taken(NODE, 2201)
    assert leases.generation(NODE) == 2


def test_the_first_of_two_equal_claims_wins() -> None:
    leases = machine()
    leases.connected(0, kept=False)
    leases.heard(NODE, -40, 2000)
    said = leases.tick(2000)
    assert said is not None
    leases.received("gw2", claims(1), 2050)  # before our own echo: it was the first
    leases.received("gw1", said, 2060)
    assert not leases.owned(NODE, 2061)
    assert leases.tick(2062) == Claims("gw1-run", 2, 1000, {})


def test_a_renewal_that_came_late_is_waited_for() -> None:
    """The old owner may not know yet: the new one begins when that lease must have ended."""
    leases = machine(generation=4)
    leases.connected(0, kept=False)
    leases.heard(NODE, -40, 2000)
    said = leases.tick(2000)
    assert said is not None
    leases.received("gw2", claims(4), 2050)
    leases.received("gw1", said, 2060)
    assert not leases.owned(NODE, 2061)
    renewed = leases.tick(2400)
    assert renewed is not None
    leases.received("gw1", renewed, 2410)
    assert not leases.owned(NODE, 2050 + wait_ms(1000) - 1)
    assert leases.owned(NODE, 2050 + wait_ms(1000))


def test_a_release_frees_at_once_and_a_late_copy_does_not_take_it_back() -> None:
    leases = machine()
    leases.connected(0, kept=False)
    leases.received("gw2", claims(1, 1), 1900)
    assert leases.taken(NODE, 2000)
    leases.received("gw2", claims(0, 2), 2000)
    leases.received("gw2", claims(1, 1), 2001)
    assert not leases.taken(NODE, 2002)


def test_a_clean_end_releases() -> None:
    leases = owner()
    said = leases.leave(2500)
    assert said is not None
    assert said.generations == {}
    assert not leases.owned(NODE, 2501)
    assert machine().leave(0) is None


def test_who_hears_but_cannot_reach_lets_go_for_a_while() -> None:
    leases = owner()
    for _ in range(4):
        leases.reached(NODE, 2100, well=False)
    leases.reached(NODE, 2100, well=True)
    assert leases.owned(NODE, 2101)
    for _ in range(5):
        leases.reached(NODE, 2200, well=False)
    assert not leases.owned(NODE, 2201)
    assert leases.tick(2201) is not None
    assert leases.tick(5000) is None
    leases.heard(NODE, -40, 5300)
    assert leases.tick(5300) is not None


def test_a_node_that_is_not_heard_is_given_up() -> None:
    leases = owner()
    said = leases.tick(2900)
    assert said is not None
    leases.received("gw1", said, 2901)
    assert leases.tick(52_001) == Claims("gw1-run", 3, 1000, {})
    assert leases.tick(60_000) is None


def test_the_last_generation_is_not_passed_and_not_used_twice() -> None:
    leases = machine(generation=GENERATION_MAX - 1)
    leases.connected(0, kept=False)
    leases.heard(NODE, -40, 2000)
    said = leases.tick(2000)
    assert said is not None
    assert said.generations == {NODE: GENERATION_MAX}
    unpack_claims(pack_claims(said))
    leases.leave(2001)
    leases.heard(NODE, -40, 4000)
    assert leases.tick(4000) is None


def test_gateways_that_topics_name_do_not_fill_the_memory() -> None:
    leases = machine()
    leases.connected(0, kept=False)
    for number in range(GATEWAYS_MAX - 1):
        assert leases.received(f"x{number}", claims(number + 1), 100)
    assert leases.received("y", claims(0), 100)  # the only one that holds nothing
    assert leases.received("gw2", claims(99), 200)
    assert not leases.received("gw3", claims(100), 300)
    assert len(leases._newest) == GATEWAYS_MAX
    assert leases.received("x1", claims(0, 2), 400)  # who is known is heard
    assert leases.received("gw3", claims(100), 500)
    assert leases.generation(NODE) == 100
    for number in range(200):
        assert leases.received(f"z{number}", claims(1), 5000 + number * wait_ms(1000))
    assert len(leases._newest) == GATEWAYS_MAX
    assert len(leases._nodes[NODE].others) <= GATEWAYS_MAX


def test_better_signals_claim_first() -> None:
    delays = [claim_delay_ms(rssi, 60_000, backup=False) for rssi in (-30, -40, -70, -100, -120)]
    assert delays == [0, 0, 3000, 6000, 6000]
    assert claim_delay_ms(-40, 60_000, backup=True) == 30_000


def test_a_broken_session_drops_what_was_owned() -> None:
    leases = owner()
    leases.connected(2100, kept=False)
    assert not leases.owned(NODE, 2101)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[1]",
        b'{"run": "a", "number": 1, "lease_ms": 5}',
        b'{"run": "a", "number": 1, "lease_ms": 5, "nodes": {"x": 0}}',
        b'{"run": "a", "number": 1, "lease_ms": 5, "nodes": {"x": 9007199254740993}}',
        b'{"run": "a", "number": true, "lease_ms": 5, "nodes": {}}',
        b'{"run": "a", "number": 1, "lease_ms": 0, "nodes": {}}',
        b'{"run": "", "number": 1, "lease_ms": 5, "nodes": {}}',
        b'{"run": "a", "number": 1, "lease_ms": 5, "nodes": []}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_what_is_no_claim_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        unpack_claims(payload)


def test_messages_come_back_as_they_were() -> None:
    said = claims(3, 7)
    assert unpack_claims(pack_claims(said)) == said
    progress = Progress(NODE, 3, 77, 12, 9)
    assert unpack_progress(NODE, pack_progress(progress)) == progress
    with pytest.raises(ValueError, match="more delivered"):
        unpack_progress(NODE, pack_progress(Progress(NODE, 3, 77, 8, 9)))
