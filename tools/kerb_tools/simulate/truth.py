"""What the nodes measured, and when: known to the simulation and its judges alone.

Rule: it is written by nodes only, at the moment of measuring; a number is measured once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

Measured = tuple[bytes, float]  # the record, and when it was made, in seconds of true time


class Truth:
    """By node and epoch, by number."""

    def __init__(self, twice: Callable[[str], None]) -> None:
        """twice: told of a number that is used again under the same key."""
        self._twice = twice
        self._streams: dict[tuple[str, int], dict[int, Measured]] = {}
        self.rows = 0
        self._of_node: Counter[str] = Counter()
        self.kept_back: set[tuple[str, int, int]] = set()  # adverts that somebody sent again

    def of(self, node: str, epoch: int) -> dict[int, Measured]:
        """Return what a node measured in an epoch."""
        return self._streams.setdefault((node, epoch), {})

    def measured(self, node: str, epoch: int, seq: int, record: bytes, made_s: float) -> None:
        """A node has stored a record."""
        known = self.of(node, epoch)
        if seq in known:
            self._twice(f"{node}/{epoch}/{seq}")
        known[seq] = (record, made_s)
        self.rows += 1
        self._of_node[node] += 1

    def of_node(self, node: str) -> int:
        """Return how much a node has measured."""
        return self._of_node[node]
