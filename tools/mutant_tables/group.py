"""What is broken among several gateways: leases, progress, ownership."""

from __future__ import annotations

from mutant_tables.mutant import Mutant
from mutant_tables.places import (
    GROUP,
    GROUP_STREET,
    KILLED,
    LEASES,
    NEVER_TWO,
    NO_RENEWAL,
    PROGRESS,
    RESTORE,
)

UNLEASED = "test_what_no_lease_concerns_has_its_tail_and_is_not_claimed"

# fmt: off
MUTANTS = [
    Mutant("who has let a node go says nothing of its silence",
           "gateway/kerb_gateway/leases.py",
           "return 0 < state.mine == state.generation", "return self.owned(node, now_ms)",
           f"{GROUP}::test_the_last_owner_says_that_a_node_is_silent_though_it_has_let_it_go"),
    Mutant("whoever had a node once says that it is silent",
           "gateway/kerb_gateway/leases.py",
           "return 0 < state.mine == state.generation", "return 0 < state.mine",
           f"{GROUP}::test_the_last_owner_says_that_a_node_is_silent_though_it_has_let_it_go"),
    Mutant("a silent lamp of a group is nobody's to tell", "gateway/kerb_gateway/group.py",
           "return node_id not in self._nodes or self.owned", "return self.owned",
           f"{GROUP}::{UNLEASED}"),
    Mutant("a Wi-Fi node is leased", "gateway/kerb_gateway/model.py",
           "self.bus is None and not self.wifi", "self.bus is None", f"{GROUP}::{UNLEASED}"),
    Mutant("a recording makes a gateway claim a node", "gateway/kerb_gateway/app.py",
           " and outcome.kind not in (REPLAY, TAMPERED):", ":",
           f"{GROUP}::test_a_recording_makes_nobody_claim_a_node"),
    Mutant("generations have no end", "gateway/kerb_gateway/leases.py",
           "spent = state.generation >= GENERATION_MAX", "spent = False",
           f"{LEASES}::test_the_last_generation_is_not_passed_and_not_used_twice"),
    Mutant("any number of gateways is remembered", "gateway/kerb_gateway/leases.py",
           "len(self._newest) < GATEWAYS_MAX:", "True:",
           f"{LEASES}::test_gateways_that_topics_name_do_not_fill_the_memory"),
    Mutant("any node's progress is remembered", "gateway/kerb_gateway/group.py",
           "        if node not in self._nodes:", "        if False:",
           f"{GROUP}::test_words_on_what_is_not_shared_here_are_counted_and_forgotten"),
    Mutant("an old epoch is not spoken of", "gateway/kerb_gateway/group.py",
           "for one in older),", "for one in older[:0]),",
           "gateway/tests/test_group.py"
           "::test_an_old_epoch_that_is_delivered_late_is_closed_at_the_others_too"),
    Mutant("lease without an end", "gateway/kerb_gateway/leases.py",
           "return now_ms < state.claim.since_ms + self._lease_ms and not state.taken(now_ms)",
           "return not state.taken(now_ms)", f"{LEASES}::{NO_RENEWAL}"),
    Mutant("others wait shorter than a lease", "gateway/kerb_gateway/leases.py",
           "_WAIT_PCT = 105", "_WAIT_PCT = 80", f"{LEASES}::{NEVER_TWO}"),
    Mutant("owner before its claim came back", "gateway/kerb_gateway/leases.py",
           "state.claim = _Claim(state.generation, now_ms)",
           "state.claim = _Claim(state.generation, now_ms, True)", f"{LEASES}::{NEVER_TWO}"),
    Mutant("a late renewal is not waited for", "gateway/kerb_gateway/leases.py",
           " and not state.taken(now_ms)\n\n", "\n\n", LEASES),
    Mutant("stale generation accepted", "gateway/kerb_gateway/leases.py",
           "claim.confirmed and generation <= claim.generation:",
           "claim.confirmed and generation < 0:", LEASES),
    Mutant("acknowledged is taken for delivered", "gateway/kerb_gateway/progress.py",
           "if outbox_done < self._pending_no:", "if False:", PROGRESS),
    Mutant("a refused row counts before its loss record", "gateway/kerb_gateway/progress.py",
           "if outbox_last > self._pending_no and not self._passed:", "if False:", PROGRESS),
    Mutant("street: a dead owner keeps its nodes", "gateway/kerb_gateway/leases.py",
           "any(now_ms < other.until_ms for other in self.others.values())",
           "bool(self.others)", f"{GROUP_STREET}::{KILLED}"),
    Mutant("the broker's own word on generations is not heard",
           "gateway/kerb_gateway/leases.py",
           "                self.seen(node, number)\n", "                pass\n",
           f"{RESTORE}::test_a_generation_does_not_fall_behind_the_brokers"),
]
