"""What is broken in the times of readings."""

from __future__ import annotations

from mutant_tables.mutant import Mutant
from mutant_tables.places import TIMEKEEPER, TIMELINE

# fmt: off
MUTANTS = [
    Mutant("the newest number at a contact was made after it", "gateway/kerb_gateway/timeline.py",
           "            if stamp.seq > contact.last_seq:",
           "            if stamp.seq >= contact.last_seq:", TIMELINE),
    Mutant("whole seconds are taken for exact", "gateway/kerb_gateway/timeline.py",
           "self._least(passed_ms - 1000)", "self._least(passed_ms)", TIMELINE),
    Mutant("drift is added on the wrong side", "gateway/kerb_gateway/timeline.py",
           "1 + self._drift if node_ms >= 0 else 1 - self._drift",
           "1 - self._drift if node_ms >= 0 else 1 + self._drift", TIMELINE),
    Mutant("uptimes of two boots are compared", "gateway/kerb_gateway/timeline.py",
           "same = [one for one in contacts if one.node_boot_no == stamp.node_boot_no]",
           "same = list(contacts)", TIMELINE),
    Mutant("a repetition is taken for fresh", "gateway/kerb_gateway/timeline.py",
           "        if not repeated:", "        if True:", TIMELINE),
    Mutant("a clock that was set by hand counts as NTP", "gateway/kerb_gateway/clock.py",
           "0 <= state < _TIME_ERROR and", "0 <= state and", TIMELINE),
    Mutant("an anchor is as sure days away", "gateway/kerb_gateway/anchor.py",
           "anchor.uncertainty_ms + drifted_ms(boottime_ms - anchor.boottime_ms)",
           "anchor.uncertainty_ms", TIMELINE),
    Mutant("what waited in front of the process is fresh", "gateway/kerb_gateway/timekeeper.py",
           "        if heard_ms < self._held_up_until_ms:", "        if False:", TIMEKEEPER),
]
