"""Topic names: kerb/v1/{site}/{gateway}/{node}/{leaf}.

Rule: a segment has letters, digits, - and _ only; it is checked where it enters (config.py).
"""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
UNKNOWN = "unknown"
READING = "reading"
EVENT = "event"
RESULT = "result"
COMMAND = "cmd"
BATCH = "batch"


class Topics:
    """The topics of one gateway."""

    def __init__(self, site: str, gateway: str) -> None:
        self._base = f"kerb/v1/{site}/{gateway}"
        self.availability = f"{self._base}/availability"
        self.batch = f"{self._base}/{BATCH}"
        self.commands = f"{self._base}/+/{COMMAND}"

    def of(self, node_id: str, leaf: str) -> str:
        """Return the topic of a node's leaf."""
        return f"{self._base}/{node_id}/{leaf}"

    def node_of(self, topic: str) -> str:
        """Return the node segment of a topic of this gateway; UNKNOWN if it can be none.

        A result goes back under this name, so what anybody may publish must not choose it freely.
        """
        segment = topic[len(self._base) + 1 :].split("/", 1)[0]
        return segment if _SEGMENT.match(segment) else UNKNOWN
