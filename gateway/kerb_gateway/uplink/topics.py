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
OWNED = "owned"
PROGRESS = "progress"
GROUP = "group"  # where a gateway's name stands else: whoever has the node


class Topics:
    """The topics of one gateway."""

    def __init__(self, site: str, gateway: str, *, grouped: bool = False) -> None:
        """grouped: commands of the group are this gateway's business too."""
        self._base = f"kerb/v1/{site}/{gateway}"
        self.availability = f"{self._base}/availability"
        self.batch = f"{self._base}/{BATCH}"
        self.commands = f"{self._base}/+/{COMMAND}"
        self.owned = f"{self._base}/{OWNED}"
        self._all_owned = f"kerb/v1/{site}/+/{OWNED}"
        self._all_progress = f"kerb/v1/{site}/+/+/{PROGRESS}"
        self._group_commands = f"kerb/v1/{site}/{GROUP}/+/{COMMAND}"
        self._site = f"kerb/v1/{site}/"
        self._grouped = grouped

    def of(self, node_id: str, leaf: str) -> str:
        """Return the topic of a node's leaf."""
        return f"{self._base}/{node_id}/{leaf}"

    def node_of(self, topic: str) -> str:
        """Return the node of a topic of this gateway, or of its group; UNKNOWN if it can be none.

        A result goes back under this name, so what anybody may publish must not choose it freely.
        """
        if self.for_group(topic):
            segment = topic.split("/")[4]
        else:
            segment = topic[len(self._base) + 1 :].split("/", 1)[0]
        return segment if _SEGMENT.match(segment) else UNKNOWN

    def for_group(self, topic: str) -> bool:
        """Tell whether a command goes to whichever gateway of the group has the node."""
        return self._grouped and topic.startswith(f"{self._site}{GROUP}/")

    def of_group(self) -> list[tuple[str, int]]:
        """Return what a gateway of a group listens to beside its commands, each with its QoS.

        Progress comes with QoS 0: the broker need not queue it for a gateway that is away, which
        is given the retained ones when it returns.
        """
        return [(self._all_owned, 1), (self._all_progress, 0), (self._group_commands, 1)]

    def is_command(self, topic: str) -> bool:
        """Tell whether a topic is one of a command to this gateway or its group."""
        mine = topic.startswith(f"{self._base}/") or self.for_group(topic)
        return mine and topic.endswith(f"/{COMMAND}")

    def said_by(self, topic: str) -> tuple[str, str, str | None]:
        """Return (leaf, gateway, node or None) of a topic that a gateway of the site speaks on."""
        gateway, *rest = topic[len(self._site) :].split("/")
        leaf = rest[-1] if rest else ""
        return leaf, gateway, rest[0] if len(rest) > 1 else None
