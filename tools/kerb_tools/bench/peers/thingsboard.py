"""ThingsBoard's gateway with its SQLite storage, against a mosquitto that plays ThingsBoard.

Rule: it lives in a virtual environment of its own under the cache, made once from the package
index and never part of this project's; where it cannot be had the bench says so and goes on.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from kerb_tools.bench.brokers import BenchBroker
from kerb_tools.bench.peers.base import JsonPeer, Missing
from kerb_tools.interpreter.cache import directory

VERSION = "3.8.5"
_INSTALL_S = 300
_SETTLE_S = 1.0
_NO_LIMIT = "0:0,"
_LIMITS = {
    "maxPayloadSize": 65536,
    "maxInflightMessages": 1000,
    "rateLimits": {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""},
    "gatewayRateLimits": {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""},
}
_START = "from thingsboard_gateway.tb_gateway import main; main()"


def interpreter() -> Path:
    """Return the Python that has it, made if need be; Missing says why there is none."""
    place = directory() / f"thingsboard-gateway-{VERSION}"
    python = place / "bin" / "python"
    done = place / "complete"
    if done.exists():
        return python
    package = f"thingsboard-gateway=={VERSION}"
    try:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(place)],
            [str(python), "-m", "pip", "install", "-q", package],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        raise Missing(f"{package}: {said.decode(errors='replace')[-200:]}") from error
    done.touch()
    return python


class ThingsBoard(JsonPeer):
    """Its MQTT connector below, its SQLite storage between, QoS 1 above."""

    name = "thingsboard_gateway"
    durability = (
        f"thingsboard-gateway {VERSION}, SQLite storage (WAL, synchronous=NORMAL, its choice), "
        "QoS 1 both ways, no rate limit, no statistics, no report strategy; the broker "
        "below is acknowledged on arrival, before anything is stored"
    )
    upstream_topic = "v1/gateway/telemetry"
    mark = b'"n":'

    def __init__(self, folder: Path, inbound: BenchBroker, upstream: BenchBroker) -> None:
        super().__init__(folder, inbound, upstream)
        self._python = interpreter()
        self._platform = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="platform")
        self._asked = False

    async def start(self) -> None:
        self._platform.on_message = self._answer
        self._platform.connect("127.0.0.1", self.upstream.port)
        self._platform.subscribe("v1/devices/me/rpc/request/+", qos=1)
        self._platform.loop_start()
        await super().start()
        await asyncio.sleep(_SETTLE_S)

    def _answer(self, client: mqtt.Client, _u: object, message: mqtt.MQTTMessage) -> None:
        """Play ThingsBoard as far as the gateway asks it: what are my limits? None."""
        number = message.topic.rpartition("/")[2]
        client.publish(f"v1/devices/me/rpc/response/{number}", json.dumps(_LIMITS), qos=1)
        self._asked = True

    async def stop(self) -> None:
        await super().stop()
        self._platform.disconnect()
        self._platform.loop_stop()

    def command(self) -> Sequence[str]:
        (self.folder / "config").mkdir()
        (self.folder / "logs").mkdir()
        for name, table in (
            ("tb_gateway.json", self._gateway()),
            ("mqtt.json", self._connector()),
            ("logs.json", _LOGS),
        ):
            (self.folder / "config" / name).write_text(json.dumps(table))
        settings = f"TB_GW_CONFIG_DIR={self.folder / 'config'}/"
        return ["env", "-u", "PYTHONPATH", settings, str(self._python), "-c", _START]

    def is_ready(self) -> bool:
        """Tell whether it has subscribed below and asked the platform for its limits."""
        return self._asked and b"up/#" in self.inbound.log.read_bytes()

    def _gateway(self) -> dict[str, Any]:
        limits = (
            "rateLimits", "dpRateLimits", "messagesRateLimits", "deviceMessagesRateLimits",
            "deviceRateLimits", "deviceDpRateLimits",
        )  # fmt: skip
        return {
            "thingsboard": {
                "host": "127.0.0.1",
                "port": self.upstream.port,
                "remoteShell": False,
                "remoteConfiguration": False,
                "statistics": {"enable": False},
                "deviceFiltering": {"enable": False},
                "maxPayloadSizeBytes": 65536,
                "minPackSendDelayMS": 50,
                "minPackSizeToSend": 500,
                "checkConnectorsConfigurationInSeconds": 3600,
                "handleDeviceRenaming": False,
                "syncDevicesSharedAttributesOnConnect": False,
                "security": {"type": "accessToken", "accessToken": "bench"},
                "qos": 1,
                "reportStrategy": {"type": "DISABLED"},
                "checkingDeviceActivity": {"checkDeviceInactivity": False},
            }
            | dict.fromkeys(limits, _NO_LIMIT),
            "storage": {
                "type": "sqlite",
                "data_file_path": f"{self.folder}/data/",
                "max_read_records_count": 1000,
                "writing_batch_size": 1000,
            },
            "grpc": {"enabled": False},
            "connectors": [{"type": "mqtt", "name": "below", "configuration": "mqtt.json"}],
        }

    def _connector(self) -> dict[str, Any]:
        numbers = ("n", "seq", "distance_mm", "temperature_c", "battery_pct")
        series = [{"type": "integer", "key": key, "value": f"${{{key}}}"} for key in numbers]
        series.append({"type": "string", "key": "quality", "value": "${quality}"})
        return {
            "broker": {
                "host": "127.0.0.1",
                "port": self.inbound.port,
                "clientId": "below",
                "version": 4,
                "maxMessageNumberPerWorker": 10,
                "maxNumberOfWorkers": 100,
                "cleanSession": False,
                "security": {"type": "anonymous"},
            },
            "mapping": [
                {
                    "topicFilter": "up/#",
                    "subscriptionQos": 1,
                    "converter": {
                        "type": "json",
                        "deviceInfo": {
                            "deviceNameExpressionSource": "message",
                            "deviceNameExpression": "${node}",
                            "deviceProfileExpressionSource": "constant",
                            "deviceProfileExpression": "bin",
                        },
                        "sendDataOnlyOnChange": False,
                        "timeout": 60000,
                        "attributes": [],
                        "timeseries": series,
                    },
                }
            ],
        }


_LOGS = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler", "level": "WARNING"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "loggers": {},
}
