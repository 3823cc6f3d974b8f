"""The city's control room: commands for lamps, some of them twice, late, or nonsense.

Rule: every command that can be read has an id of its own; what is repeated is repeated as it was.
"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

from kerb_tools.simulate.lamp import Lamp

if TYPE_CHECKING:
    from kerb_tools.simulate.street import Street

_LIVES_S = (30, 60, 120, 600, 3600, 7200)


class Commander:
    """Publishes one command at a time."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self._random = random
        self._number = 0

    def publish(self) -> None:
        """Ask something of some lamp."""
        street, random = self._street, self._random
        self._number += 1
        command_id = f"c{self._number}"
        lamp = random.choice([one for one in street.nodes.values() if isinstance(one, Lamp)])
        house = lamp.house
        table = {
            "command_id": command_id,
            "level_pct": random.choice((0, 3, 20, 50, 80, 100)),
            "hold_s": 60,
            "ttl_s": random.choice(_LIVES_S),
        }
        draw = random.random()
        if draw < 0.02:
            table["level_pct"] = 101
        elif draw < 0.03:
            table["colour"] = "green"
        node_id = lamp.node_id if draw < 0.98 else "a4cf00000000"
        payload = b"not JSON" if 0.03 < draw < 0.04 else json.dumps(table).encode()
        retained = 0.04 < draw < 0.05  # refused unread
        if payload != b"not JSON" and not retained:
            house.judge.commands.published(node_id, table)
        topic = house.topics.of(node_id, "cmd")
        if street.grouped and node_id == lamp.node_id and random.random() < 0.5:
            topic = f"kerb/v1/north/group/{node_id}/cmd"  # to whichever gateway has the lamp
        street.trace.note(f"asked {command_id} {node_id}")
        street.broker.command(topic, payload, retained=retained)
        if random.random() < 0.1 and not retained:
            street.timeline.after(random.uniform(0, 300), street.broker.command, topic, payload)
