"""Raw paho: subscribes, counts, and does nothing else with a message."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Sequence

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from kerb_tools.bench.peers.base import JsonPeer


class PahoSubscribe(JsonPeer):
    """The least that Python with paho does for a message; it forwards nothing."""

    name = "paho_subscribe"
    mark = b'"n":'
    durability = "none: QoS 1, acknowledged on arrival, nothing kept, nothing forwarded"
    identity = re.compile(b"")
    ready_line = b"ready"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", __name__, str(self.inbound.port), str(self.upstream.port)]


def main() -> None:
    """Count what comes; publish each thousandth count upstream, so that the end is seen there."""
    inbound, upstream = int(sys.argv[1]), int(sys.argv[2])
    reporter = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="reporter")
    reporter.connect("127.0.0.1", upstream)
    reporter.loop_start()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="raw", clean_session=False)
    count = 0

    def arrived(_c: mqtt.Client, _u: object, _m: mqtt.MQTTMessage) -> None:
        nonlocal count
        count += 1
        if count % 1000 == 0:
            reporter.publish("count", b'"n":' * 1000)

    subscribed = threading.Event()
    client.on_message = arrived
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", inbound)
    client.subscribe("up/#", qos=1)
    client.loop_start()
    subscribed.wait()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
