"""Commands to the group: whose business each is, and what waits until somebody owns its node.

Rule: a lamp's command is taken by the gateway that has its bus, a BLE node's by its owner, and by
nobody else; so there is one result. What nobody owns yet waits, within a bound, also when its
life is over: the owner that comes says so. What is given up is counted and logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kerb_gateway.leases import ELSEWHERE, NOBODY

_HELD = 64

Log = Callable[..., Any]


class GroupCommands:
    """The messages that wait, and the question whose they are."""

    def __init__(
        self,
        has_bus: Callable[[str], bool | None],
        place: Callable[[str], str],
        count: Callable[[str], None],
        log: Log,
    ) -> None:
        """has_bus: whether a node hangs on a bus of this gateway (None: not configured here);
        place: HERE, ELSEWHERE or NOBODY, for a node without a bus.
        """
        self._has_bus, self._place = has_bus, place
        self._count, self._log = count, log
        self._held: list[tuple[int, str, Any]] = []

    def __len__(self) -> int:
        return len(self._held)

    def is_mine(self, node_id: str, message: Any, until_ms: int) -> bool:
        """Tell whether to take a message now; one of a node without an owner is held."""
        bus = self._has_bus(node_id)
        if bus is not False:
            if bus is None:
                self._count("command of another gateway")
            return bool(bus)
        place = self._place(node_id)
        if place == NOBODY:
            self._hold(node_id, message, until_ms)
            return False
        if place == ELSEWHERE:
            self._count("command of another gateway")
        return place != ELSEWHERE

    def _hold(self, node_id: str, message: Any, until_ms: int) -> None:
        if len(self._held) >= _HELD:
            self._give_up(node_id, "too many wait for an owner")
        else:
            self._held.append((until_ms, node_id, message))

    def _give_up(self, node_id: str, why: str) -> None:
        self._count("command without an owner")
        self._log("command left", node=node_id, why=why)

    def taken_up(self, now_ms: int) -> list[tuple[Any, bool]]:
        """Return what was held and is this gateway's now, each with whether its life is over.

        What is another's is forgotten: that one held it too.
        """
        held, self._held = self._held, []
        mine = []
        for until_ms, node_id, message in held:
            if self.is_mine(node_id, message, until_ms):
                mine.append((message, now_ms >= until_ms))
        return mine
