"""mosquitto's own bridge: the inbound broker hands everything to the upstream one."""

from __future__ import annotations

from collections.abc import Sequence

from kerb_tools.bench.peers.base import JsonPeer


class Bridge(JsonPeer):
    """It lives in the inbound broker, so that one process takes, keeps and forwards."""

    name = "mosquitto_bridge"
    durability = (
        "QoS 1 in and out, cleansession false, persistence with autosave every second: what was "
        "acknowledged since the last one is in memory only"
    )
    mark = b'"n":'

    @property
    def inbound_settings(self) -> str:  # type: ignore[override]
        return (
            f"persistence true\npersistence_location {self.folder}/\nautosave_interval 1\n"
            f"connection up\naddress 127.0.0.1:{self.upstream.port}\ncleansession false\n"
            "bridge_protocol_version mqttv311\ntopic up/# out 1\nnotifications false\n"
        )

    @property
    def pids(self) -> list[int]:
        return [self.inbound.pid]

    def command(self) -> Sequence[str]:
        return []

    async def start(self) -> None:
        """The broker is there already; the course sends a reading until one comes through."""

    async def stop(self) -> None:
        """The broker is the course's."""
