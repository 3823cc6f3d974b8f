"""An independent subscriber: writes every message of a topic filter to a file, and nothing else.

Rule: it shares no code with the gateway; a row is on disk before the broker gets its PUBACK, so
what the broker believes delivered is in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, TextIO

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

_RECONNECT_MIN_S = 1
_RECONNECT_MAX_S = 2


def _row(message: mqtt.MQTTMessage) -> dict[str, Any]:
    text = message.payload.decode("utf-8", "replace")
    try:
        payload = json.loads(text)
    except ValueError:
        payload = None
    return {
        "t_s": time.clock_gettime(time.CLOCK_BOOTTIME),
        "topic": message.topic,
        "payload": payload,
        "text": text if payload is None else None,
        "qos": message.qos,
        "retain": bool(message.retain),
        "dup": bool(message.dup),
    }


class Subscriber:
    """One MQTT client and one file; runs in the caller's thread until stop() is called."""

    def __init__(self, host: str, port: int, topic: str, file: TextIO) -> None:
        self._file = file
        self._topic = topic
        self._stopping = False
        self._announced = False
        # A persistent session: messages that pass while the broker restarts are kept for us.
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"kerb-check-{os.getpid()}",
            clean_session=False,
            manual_ack=True,
        )
        self._client.reconnect_delay_set(_RECONNECT_MIN_S, _RECONNECT_MAX_S)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._host = host
        self._port = port

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        if not self._announced:
            self._announced = True
            print("ready", flush=True)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        self._write(_row(message))
        client.ack(message.mid, message.qos)

    def run(self) -> None:
        """Connect, write rows until stop(); reconnects by itself when the broker goes away."""
        self._write({"type": "begin", "t_s": time.clock_gettime(time.CLOCK_BOOTTIME)})
        self._client.connect_async(self._host, self._port, keepalive=10)
        self._client.loop_start()
        while not self._stopping:
            time.sleep(0.1)
        self._client.disconnect()
        self._client.loop_stop()
        self._write({"type": "end", "t_s": time.clock_gettime(time.CLOCK_BOOTTIME)})

    def stop(self, *_: Any) -> None:
        """End run() at its next look."""
        self._stopping = True


def main(arguments: list[str] | None = None) -> int:
    """Run the subscriber as a process: prints "ready" once subscribed; SIGTERM ends it cleanly."""
    parser = argparse.ArgumentParser(prog="kerb-check-subscriber", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topic", default="kerb/v1/#", help="topic filter [%(default)s]")
    parser.add_argument("--file", type=Path, required=True, help="where the rows go, appended")
    options = parser.parse_args(arguments)
    with options.file.open("a", encoding="utf-8") as file:
        subscriber = Subscriber(options.host, options.port, options.topic, file)
        signal.signal(signal.SIGTERM, subscriber.stop)
        signal.signal(signal.SIGINT, subscriber.stop)
        subscriber.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
