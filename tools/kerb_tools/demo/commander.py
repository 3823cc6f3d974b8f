"""Sends lamp commands as the city's platform would, and writes down what it sent.

Rule: a command is written down before it is sent; one that was never handed to the broker is not
in the file.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

_HOLD_S = 120
_TTL_S = 12
_LEVELS = (0, 20, 35, 50, 65, 80, 100)


class Commander:
    """Sends commands at even intervals to one lamp after the other."""

    def __init__(self, port: int, base_topic: str, file: Path, seed: int) -> None:
        """base_topic: kerb/v1/{site}/{gateway}."""
        self._base = base_topic
        self._file = file.open("w", encoding="utf-8")
        self._random = random.Random(seed)
        self.sent = 0
        self.taken = 0  # by the broker
        self.commands: dict[str, tuple[str, dict[str, Any]]] = {}  # command_id -> topic, command
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="kerb-commander", clean_session=False
        )
        self._client.on_publish = self._acknowledged
        self._client.reconnect_delay_set(1, 2)
        self._client.connect_async("127.0.0.1", port, keepalive=5)
        self._client.loop_start()
        self._write({"type": "begin", "t_s": _now_s()})

    async def run(self, lamps: list[str], interval_s: float) -> None:
        """Send for ever; paho keeps what cannot go out while the broker is away."""
        if not lamps:
            return
        while True:
            self.send(lamps[self.sent % len(lamps)], level_pct=self._random.choice(_LEVELS))
            await asyncio.sleep(interval_s)

    def send(self, lamp: str, *, level_pct: int, ttl_s: int = _TTL_S) -> str:
        """Send one command; returns its id."""
        self.sent += 1
        command: dict[str, Any] = {
            "command_id": f"demo-{self.sent}",
            "level_pct": level_pct,
            "hold_s": _HOLD_S,
            "ttl_s": ttl_s,
            "fade_ms": 500,
        }
        self._write({"t_s": _now_s(), "node": lamp} | command)
        topic, command_id = f"{self._base}/{lamp}/cmd", str(command["command_id"])
        self.commands[command_id] = (topic, command)
        self._client.publish(topic, json.dumps(command), qos=1)
        return command_id

    def _acknowledged(self, *_: Any) -> None:
        self.taken += 1

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write the end and disconnect."""
        self._write({"type": "end", "t_s": _now_s()})
        self._file.close()
        self._client.disconnect()
        self._client.loop_stop()


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
