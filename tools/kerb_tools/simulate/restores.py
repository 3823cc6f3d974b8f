"""A backup is taken, the gateway lives on, and the backup comes back.

Rule: what the gateway has forgotten the world has not: nodes, broker and judge stay as they are,
and whoever has recorded adverts meanwhile sends them again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from kerb_tools.simulate.bin import Bin
from kerb_tools.simulate.judge import Memory
from kerb_tools.simulate.timeline import Crash

if TYPE_CHECKING:
    from kerb_tools.simulate.street import Street

_DAY_S = 86400.0
_LIFE_S = 0.7 * _DAY_S  # from a backup to its restore, in the mean
_REPLAYS = 4  # of each bin, in the hour after a restore
_REPLAYED_S = 3600.0


@dataclass
class Taken:
    """A backup, and what the judge knew when it was taken."""

    copy: sqlite3.Connection
    memory: Memory

    def restore(self, street: Street) -> None:
        """Let the database be the backup."""
        street.trace.note("restore")
        street.disk.restore(self.copy)
        self.copy.close()
        street.judge.restored(self.memory)


class Restores:
    """Plans both."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self.random = random

    def back_up(self) -> None:
        """Take a backup now and plan its restore."""
        if not self._street.alive or self._street.disk.in_transaction:
            return
        self._street.trace.note("backup")
        taken = Taken(self._street.disk.copy(), self._street.judge.remember())
        after_s = self.random.expovariate(1 / _LIFE_S)
        self._street.timeline.after(after_s, self._restore, taken)

    def _restore(self, taken: Taken) -> None:
        """End the process; before its next life the backup is put in place."""
        street = self._street
        if street.calm or not street.alive or taken.memory.restores != street.judge.restores:
            taken.copy.close()  # after another restore this is of a time that is no more
            return
        for node in street.nodes.values():
            if isinstance(node, Bin):
                for _ in range(_REPLAYS):
                    after_s = self.random.uniform(60.0, _REPLAYED_S)
                    street.timeline.after(after_s, street.air.replay, node)
        street.restoring = taken
        raise Crash
