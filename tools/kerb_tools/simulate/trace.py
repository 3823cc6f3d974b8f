"""What happened, as one running hash and the last lines in words.

Rule: everything that somebody outside could see is noted, in the order in which it happened; two
runs are the same exactly if their hashes are.
"""

from __future__ import annotations

import hashlib
from collections import deque

from kerb_tools.simulate.timeline import Timeline

_TAIL_LINES = 40


class Trace:
    """The notes of one run."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._hash = hashlib.blake2b(digest_size=16)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def note(self, what: str) -> None:
        """Note an event at this moment."""
        line = f"{self._timeline.now_s:.3f} {what}\n"
        self._hash.update(line.encode())
        self._tail.append(line)

    def digest(self) -> str:
        """Return the hash up to here."""
        return self._hash.hexdigest()

    def tail(self) -> list[str]:
        """Return the last lines."""
        return [line.rstrip() for line in self._tail]
