"""How large a message may be: what the broker takes, and what a batch may hold.

Rule: a broker hangs up on a packet above its Maximum Packet Size, and paho would send it again for
ever: what is larger is never sent.
"""

from __future__ import annotations

TOO_LARGE = 0x95  # MQTT 5, 2.4: Packet too large; no PUBACK says it, so we do
_BATCH_BYTES = 60_000
_OVERHEAD_BYTES = 512  # topic, header and properties of a message
_FIXED_BYTES = 2 + 2 + 1  # lengths of topic and properties, message id
_BITS_OF_LENGTH = 7  # in each octet of the packet's own length


def packet_bytes(topic: str, payload: bytes | bytearray, properties_bytes: int = 0) -> int:
    """Return how long the PUBLISH of a message is: QoS 1, few properties (below 128 bytes)."""
    rest = _FIXED_BYTES + properties_bytes + len(topic.encode()) + len(payload)
    return 1 + -(-rest.bit_length() // _BITS_OF_LENGTH) + rest


def batch_bytes(maximum_packet_bytes: int) -> int:
    """Return how many bytes of payloads may travel in one message."""
    return min(_BATCH_BYTES, maximum_packet_bytes - _OVERHEAD_BYTES)
