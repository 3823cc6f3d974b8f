"""A backup is taken, the gateway lives on, and the backup comes back.

Rule: what the gateway has forgotten the world has not: nodes, broker and judge stay as they are,
and whoever has recorded adverts meanwhile sends them again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerb_tools.simulate.bin import Bin
from kerb_tools.simulate.chance import generator
from kerb_tools.simulate.judge import Memory

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_DAY_S = 86400.0
_LIFE_S = 0.7 * _DAY_S  # from a backup to its restore, in the mean
_REPLAYS = 4  # of each bin, in the hour after a restore
_REPLAYED_S = 3600.0


@dataclass
class Taken:
    """A backup, and what the judge knew when it was taken."""

    copy: sqlite3.Connection
    memory: Memory


class Restores:
    """Plans both, for one gateway."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.random = generator(house.street.seed, f"{house.name}/restores")

    def back_up(self) -> None:
        """Take a backup now and plan its restore."""
        house = self._house
        if not house.alive or house.disk.in_transaction:
            return
        house.trace.note(f"{house.name} backup")
        taken = Taken(house.disk.copy(), house.judge.remember())
        house.timeline.after(self.random.expovariate(1 / _LIFE_S), self._restore, taken)

    def _restore(self, taken: Taken) -> None:
        """End the process; before its next life the backup is put in place."""
        house, street = self._house, self._house.street
        if street.calm or not house.alive or taken.memory.restores != house.judge.restores:
            taken.copy.close()  # after another restore this is of a time that is no more
            return
        for node in street.nodes.values():
            if isinstance(node, Bin):
                for _ in range(_REPLAYS):
                    after_s = self.random.uniform(60.0, _REPLAYED_S)
                    street.timeline.after(after_s, street.air.replay, node)
        house.kill("ends to be restored")
        house.disk.restore(taken.copy)
        taken.copy.close()
        house.judge.restored(taken.memory)
