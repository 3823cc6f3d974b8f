"""The load of `kerb bench gateway`: prepared MQTT messages, sent by a process of its own.

Rule: everything is encoded before the first message leaves, so that the load takes next to
nothing from the machine it shares with what is measured; a bounded number is unacknowledged.

Run as `python -m kerb_tools.bench.load PORT FILE RATE WINDOW`: FILE holds the packets, each behind
its length (u32); RATE is messages a second, 0 as fast as the broker takes them. Prints the
monotonic times (ns) at which each message left, as one line of JSON, when all are acknowledged.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_CONNECT = b"\x10\x14\x00\x04MQTT\x04\x02\x00\xff\x00\x08kerbload"
_PUBACK_BYTES = 4  # MQTT 3.1.1, 3.4
_GROUP = 50  # messages a system call when there is no rate to keep
_TICK_S = 0.001


def publish(topic: str, payload: bytes, mid: int) -> bytes:
    """Return a QoS 1 PUBLISH packet (MQTT 3.1.1, 3.3)."""
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + struct.pack(">H", mid) + payload
    length, octets = len(body), bytearray()
    while True:
        length, octet = length >> 7, length & 0x7F
        octets.append(octet | 0x80 if length else octet)
        if not length:
            return b"\x32" + bytes(octets) + body


def write(path: Path, packets: Sequence[bytes]) -> None:
    """Write packets as a load's file."""
    path.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in packets))


def read(path: Path) -> list[bytes]:
    """Return the packets of a load's file."""
    data, at, packets = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        packets.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return packets


class Sender:
    """One connection that counts its PUBACKs."""

    def __init__(self, port: int, window: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_CONNECT)
        if self._socket.recv(4)[3:] != b"\x00":
            raise SystemExit("the broker refuses the load")
        self._window = window
        self._sent = 0
        self._acked_bytes = 0

    def send(self, packets: Sequence[bytes]) -> None:
        """Send some packets once the window has room for them."""
        while self._sent + len(packets) - self._acked_bytes // _PUBACK_BYTES > self._window:
            self._take()
        self._socket.sendall(b"".join(packets))
        self._sent += len(packets)

    def _take(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise SystemExit("the broker has ended the load's connection")
        self._acked_bytes += len(data)

    def finish(self) -> None:
        """Wait until everything is acknowledged."""
        while self._acked_bytes < self._sent * _PUBACK_BYTES:
            self._take()
        self._socket.sendall(b"\xe0\x00")
        self._socket.close()


def run(port: int, packets: Sequence[bytes], rate: float, window: int) -> list[int]:
    """Send all; return when each left (ns of the monotonic clock)."""
    sender, times, at = Sender(port, window), [], 0
    began_ns = time.monotonic_ns()
    while at < len(packets):
        due = len(packets)
        if rate:
            due = min(due, int((time.monotonic_ns() - began_ns) * rate / 1e9) + 1)
        group = packets[at : min(due, at + _GROUP)]
        if not group:
            time.sleep(_TICK_S)
            continue
        sender.send(group)
        times += [time.monotonic_ns()] * len(group)
        at += len(group)
    sender.finish()
    return times


def main() -> None:
    """Entry point of the process."""
    port, path, rate, window = sys.argv[1:]
    packets = read(Path(path))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(run(int(port), packets, float(rate), int(window))), flush=True)


if __name__ == "__main__":
    main()
