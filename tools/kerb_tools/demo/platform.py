"""The city's platform at the end of a run: it asks again for what the broker has lost.

Rule: it knows only what came out of the broker and what it has sent itself. A broker that answers
before it saves loses, when it is killed, messages that it had acknowledged: the gateway's are
asked for by their numbers, the platform's own commands are sent again under their id.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import paho.mqtt.client as mqtt
from kerb_sim.street import SITE
from paho.mqtt.enums import CallbackAPIVersion

from kerb_tools.demo import holes
from kerb_tools.demo.commander import Commander

_RANGES_MOST = 64  # asked for one after the other; what lies between more is asked for with them
_ANSWER_S = 15.0


class Platform:
    """Reads the subscriber's file, asks through a client of its own."""

    def __init__(self, port: int, subscriber_file: Path) -> None:
        self._file = subscriber_file
        self._asked = 0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="kerb-platform")
        self._client.connect_async("127.0.0.1", port, keepalive=5)
        self._client.reconnect_delay_set(1, 2)
        self._client.loop_start()

    async def ask_again(self, gateways: list[str]) -> int:
        """Ask each gateway for the numbers that never came; returns how many they were."""
        number = 0
        for gateway in gateways:
            missing = holes.of(gateway, holes.rows(self._file))
            number += sum(last - first + 1 for first, last in missing)
            if len(missing) > _RANGES_MOST:
                missing = [
                    *missing[: _RANGES_MOST - 1],
                    (missing[_RANGES_MOST - 1][0], missing[-1][1]),
                ]
            for first, last in missing:
                await self._replay(gateway, first, last)
        return number

    async def _replay(self, gateway: str, first: int, last: int) -> None:
        self._asked += 1
        command_id = f"again-{self._asked}"
        command = {"command_id": command_id, "replay": {"from": first, "to": last}}
        topic = f"kerb/v1/{SITE}/{gateway}/gateway/cmd"
        self._client.publish(topic, json.dumps(command), qos=1)
        deadline = asyncio.get_running_loop().time() + _ANSWER_S
        while asyncio.get_running_loop().time() < deadline:
            if command_id in holes.answered(holes.rows(self._file)):
                return
            await asyncio.sleep(0.1)

    def unanswered(self, commander: Commander) -> list[str]:
        """Return the ids of the commands that have no result."""
        answered = holes.answered(holes.rows(self._file))
        return [one for one in commander.commands if one not in answered]

    def send_again(self, commander: Commander) -> int:
        """Send the commands once more that have no result; returns how many they were."""
        open_ids = self.unanswered(commander)
        for command_id in open_ids:
            topic, command = commander.commands[command_id]
            self._client.publish(topic, json.dumps(command), qos=1)
        return len(open_ids)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
