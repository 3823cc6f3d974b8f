"""Bins that go out of reach at some time and never come back: they measure on, and nobody hears.

Rule: what a gateway did not hear of such a bin is covered by the tail that it must say; nothing
else befalls them that could bring them back.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerb_tools.simulate.street import Street

_FOR_EVER = float("inf")


class Departures:
    """Plans them, and knows who is gone."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self._random = random
        self.gone: set[str] = set()

    def begin(self) -> None:
        """Choose who goes, and when."""
        street, random = self._street, self._random
        for node_id, node in street.nodes.items():
            if node.role == "bin" and random.random() < street.odds.gone:
                street.timeline.at(random.uniform(0, street.left_s), self._go, node_id)

    def _go(self, node_id: str) -> None:
        self._street.trace.note(f"gone {node_id}")
        self.gone.add(node_id)
        self._street.nodes[node_id].away_until_s = _FOR_EVER
