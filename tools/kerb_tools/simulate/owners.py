"""Who owns a node in a group, judged by true time: never two, and soon one again.

Rule: the gateways are only asked what they would do; whether they may is decided here: by what
all of them would do at one moment, by who is connected, and by what has arrived upstream.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Street

_LOOK_S = 300.0
# After the last disturbance others wait out a lease while a newcomer listens for one; the weaker
# ones and backups wait a little longer.
# Who fails five visits, or is not told of its own claim, holds back for three leases; then another
# waits out the last claim, and leaves the node to better antennas first.
_SOON_LEASES = 4.0
_TRIES = 5  # that many failed visits in a row, or fewer tries, may make an owner let go
_REST_LEASES = 3  # and then it leaves the node alone for so long
_SILENT_S = 6000.0  # a node is given up, and claimed anew, when it was not heard for two hours
_VISIT_S = 11.0  # a visit that began within the lease may outlast it, bounded by its own timeout


class Owners:
    """Of all BLE nodes of a street; a gateway that is alone owns everything."""

    def __init__(self, street: Street) -> None:
        self._street = street
        self._disturbed_s = 0.0
        self._free_s: dict[str, float] = {}  # node -> since when nobody was seen to own it
        self._last: dict[str, str] = {}  # node -> who was seen to own it last
        self._failures: Counter[tuple[str, str]] = Counter()  # tries in a row
        self._rests_until_s: dict[str, float] = {}
        self._visits: dict[str, dict[str, float]] = {}  # node -> who is connected, since when
        self._told_seq: dict[tuple[str, int], int] = {}
        self._heard: dict[tuple[str, str], tuple[float, float]] = {}  # since when, and when last
        self.takeovers = 0
        self.claims = 0
        self.outlasted = 0
        self.lease_s = 0.0

    def begin(self, lease_s: float) -> None:
        """Look now and then."""
        self.lease_s = lease_s
        self._street.timeline.after(_LOOK_S, self._look)

    def disturbed(self) -> None:
        """A gateway has come or gone, or its connection has."""
        self._disturbed_s = self._street.timeline.now_s

    def heard(self, house: House, node: str) -> None:
        """A gateway has heard a node."""
        if self.lease_s:
            key, now_s = (house.name, node), self._street.timeline.now_s
            since_s, last_s = self._heard.get(key, (now_s, now_s))
            self._heard[key] = (now_s if now_s - last_s > _SILENT_S else since_s, now_s)

    def _look(self) -> None:
        if self._street.over:
            return
        self._street.timeline.after(_LOOK_S, self._look)
        for node_id, node in self._street.nodes.items():
            if node.role == "bin":
                self._check(node_id)

    def _owners(self, node_id: str) -> list[House]:
        return [
            house
            for house in self._street.houses
            if house.gateway is not None
            and house.gateway.group is not None
            and house.gateway.group.owned(node_id)
        ]

    def _check(self, node_id: str) -> None:
        now_s = self._street.timeline.now_s
        owners = self._owners(node_id)
        if len(owners) > 1:
            self._found("two owners at once", node_id, " and ".join(one.name for one in owners))
        if owners:
            self._owned(node_id, owners[0])
            return
        since_s = max(
            self._free_s.setdefault(node_id, now_s),
            self._disturbed_s,
            self._rests_until_s.get(node_id, 0.0),
        )
        soon_s = now_s - _SOON_LEASES * self.lease_s
        if since_s < soon_s and self._could_own(node_id, soon_s):
            self._found("nobody owns a node", node_id, f"for {now_s - since_s:.0f} s")

    def _owned(self, node_id: str, owner: House) -> None:
        self._free_s.pop(node_id, None)
        before = self._last.get(node_id)
        self._last[node_id] = owner.name
        if before is not None and before != owner.name:
            self._street.trace.note(f"{node_id} taken over by {owner.name} from {before}")
            self.takeovers += 1

    def _could_own(self, node_id: str, since_s: float) -> bool:
        """Tell whether a living, connected gateway has heard the node all the time."""
        return any(
            house.client is not None
            and house.client.linked
            and not house.disk.is_full
            and self._heard_since(house, node_id) < since_s
            for house in self._street.houses
        )

    def _heard_since(self, house: House, node_id: str) -> float:
        now_s = self._street.timeline.now_s
        since_s, last_s = self._heard.get((house.name, node_id), (now_s, now_s))
        return now_s if now_s - last_s > _SILENT_S else since_s

    # --- visits ---

    def visit(self, house: House, node_id: str) -> None:
        """A gateway begins to connect to a node."""
        if not self.lease_s:
            return
        owners = self._owners(node_id)
        others = [one for one in owners if one is not house]
        if others:
            self._found("two owners connect", node_id, f"{house.name}, {others[0].name} owns it")
        if house not in owners:
            self._found("a visit without a lease", node_id, f"{house.name} does not own it")

    def entered(self, house: House, node_id: str) -> None:
        """A connection stands."""
        now_s = self._street.timeline.now_s
        there = self._visits.setdefault(node_id, {})
        for other, since_s in there.items():
            if other == house.name:
                continue
            self.outlasted += 1
            if now_s - since_s > _VISIT_S:
                self._found("two visits at once", node_id, f"{other} and {house.name}")
        there[house.name] = now_s

    def left(self, house: House, node_id: str, *, well: bool) -> None:
        """A connection ended, or none came about."""
        key = (house.name, node_id)
        self._failures[key] = 0 if well else self._failures[key] + 1
        if self._failures[key] >= _TRIES:
            rest_s = _REST_LEASES * self.lease_s
            self._rests_until_s[node_id] = self._street.timeline.now_s + rest_s
        self._visits.get(node_id, {}).pop(house.name, None)

    def died(self, house: House) -> None:
        """A gateway is gone, and its connections with it."""
        for there in self._visits.values():
            there.pop(house.name, None)
        self.disturbed()

    # --- what they say ---

    def said(self, topic: str, payload: bytes) -> None:
        """A retained message of the group: is all of it delivered that it says is?"""
        *_, node_id, leaf = topic.split("/")
        if leaf != "progress":
            self.claims += 1
            return
        told = msgspec.json.decode(payload)
        key = (node_id, told["epoch"])
        for seq in range(self._told_seq.get(key, 0) + 1, told["delivered_seq"] + 1):
            if not self._street.settled(*key, seq):
                self._found("said to be delivered", f"{node_id}/{key[1]}/{seq}", topic)
            self._told_seq[key] = seq

    def _found(self, kind: str, subject: str, detail: str) -> None:
        self._street.houses[0].judge.found(kind, subject, detail)
