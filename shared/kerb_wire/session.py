"""An authenticated session over one GATT connection: handshake, then sealed messages.

Rule: three messages prove both sides (HELLO_GATEWAY, HELLO_NODE, PROOF); after that nothing is
believed without a MIC, and a counter only rises. Pure: the caller hands in nonces and `new_ecb`.

Frame payloads are PLAIN + message, or SEALED + counter (u32) + ciphertext + tag (8 bytes).
"""

import struct

from kerb_wire import messages
from kerb_wire.ccm import decrypt, encrypt, same
from kerb_wire.errors import KIND, MIC, ORDER, TRUNCATED, RemoteFault
from kerb_wire.keys import cmac, derive, down_key, up_key
from kerb_wire.limits import SEQ_MAX
from kerb_wire.messages import HELLO_GATEWAY, HELLO_NODE, PROOF, TAG_BYTES

PLAIN = 0
SEALED = 1

_UP = 0  # direction byte of the nonce: node to gateway
_DOWN = 1


class Channel:
    """Both directions of a proven session; seal() what is sent, open() what came."""

    def __init__(self, seal_ecb, open_ecb, seal_direction):
        self._seal_ecb = seal_ecb
        self._open_ecb = open_ecb
        self._direction = seal_direction
        self._sent = 0
        self._seen = 0

    def seal(self, message: bytes) -> bytes:
        """Return a frame payload that carries `message` (bytes of messages.encode)."""
        if self._sent >= SEQ_MAX:
            raise RemoteFault(ORDER, "the session's counter is used up")
        self._sent += 1
        counter = struct.pack("<I", self._sent)
        text, tag = encrypt(
            self._seal_ecb, _nonce(self._direction, counter), message, tag_bytes=TAG_BYTES
        )
        return bytes([SEALED]) + counter + text + tag

    def open(self, payload: bytes):
        """Return (kind, row) of a sealed payload; RemoteFault if forged, replayed or unknown."""
        if len(payload) < 1 + 4 + 1 + TAG_BYTES:
            raise RemoteFault(TRUNCATED, f"a sealed payload of {len(payload)} bytes")
        if payload[0] != SEALED:
            raise RemoteFault(KIND, f"payload type {payload[0]} after the proof")
        counter = payload[1:5]
        nonce = _nonce(1 - self._direction, counter)
        message = decrypt(
            self._open_ecb,
            nonce,
            payload[5:-TAG_BYTES],
            payload[-TAG_BYTES:],
            tag_bytes=TAG_BYTES,
        )
        number = struct.unpack("<I", counter)[0]
        if number <= self._seen:
            raise RemoteFault(ORDER, f"counter {number} after {self._seen}")
        self._seen = number
        return messages.decode(message)


def _nonce(direction: int, counter: bytes) -> bytes:
    return bytes([direction]) + counter + bytes(8)


def plain(message: bytes) -> bytes:
    """Return a frame payload for a message of the handshake or a refusal."""
    return bytes([PLAIN]) + message


def open_plain(payload: bytes):
    """Return (kind, row) of an unsealed payload."""
    if len(payload) < 2:
        raise RemoteFault(TRUNCATED, f"a payload of {len(payload)} bytes")
    if payload[0] != PLAIN:
        raise RemoteFault(KIND, f"payload type {payload[0]} before the proof")
    return messages.decode(payload[1:])


class NodeHandshake:
    """The node's half: answer() a HELLO_GATEWAY, then check() the PROOF for the channel."""

    def __init__(self, new_ecb, root_key):
        self._new_ecb = new_ecb
        self._root_key = root_key
        self._keys = None
        self._transcript = b""

    def answer(self, hello: bytes, nonce: bytes, node_fields) -> bytes:
        """Return the HELLO_NODE message (bytes).

        hello: the whole HELLO_GATEWAY message; nonce: 16 fresh random bytes; node_fields: a
        function from that nonce to HelloNode's fields without the tag, version first.
        """
        fields = node_fields(nonce)
        body = messages.encode(HELLO_NODE, *fields, bytes(TAG_BYTES))[:-TAG_BYTES]
        self._transcript = hello + body
        self._keys = _session_keys(self._new_ecb, self._root_key, self._transcript)
        return body + _tag(self._new_ecb, self._keys[0], b"node", self._transcript)

    def check(self, proof):
        """Return the Channel if `proof` (a Proof row) is right; RemoteFault(MIC) else."""
        if self._keys is None:
            raise RemoteFault(ORDER, "a proof before any hello")
        up, down = self._keys
        if not same(_tag(self._new_ecb, down, b"gateway", self._transcript), proof.tag):
            raise RemoteFault(MIC, "the gateway's proof does not match")
        return Channel(self._new_ecb(up), self._new_ecb(down), _UP)


class GatewayHandshake:
    """The gateway's half: hello(), then finish() with the node's answer."""

    def __init__(self, new_ecb, root_key, nonce, gateway_boot, boottime_s):
        self._new_ecb = new_ecb
        self._root_key = root_key
        self._hello = messages.encode(HELLO_GATEWAY, 1, nonce, gateway_boot, boottime_s)

    def hello(self) -> bytes:
        """Return the HELLO_GATEWAY message (bytes)."""
        return self._hello

    def finish(self, answer: bytes):
        """Return (HelloNode row, PROOF message, Channel); RemoteFault if the node is not proven.

        answer: the whole HELLO_NODE message as received.
        """
        kind, row = messages.decode(answer)
        if kind != HELLO_NODE:
            raise RemoteFault(ORDER, f"message kind {kind} instead of a hello")
        transcript = self._hello + bytes(answer[:-TAG_BYTES])
        up, down = _session_keys(self._new_ecb, self._root_key, transcript)
        if not same(_tag(self._new_ecb, up, b"node", transcript), row.tag):
            raise RemoteFault(MIC, "the node's hello does not match its key")
        proof = messages.encode(PROOF, _tag(self._new_ecb, down, b"gateway", transcript))
        return row, proof, Channel(self._new_ecb(down), self._new_ecb(up), _DOWN)


def _session_keys(new_ecb, root_key: bytes, transcript: bytes) -> tuple[bytes, bytes]:
    up = derive(new_ecb, up_key(new_ecb, root_key), b"session", transcript)
    down = derive(new_ecb, down_key(new_ecb, root_key), b"session", transcript)
    return up, down


def _tag(new_ecb, key: bytes, label: bytes, transcript: bytes) -> bytes:
    return cmac(new_ecb(key), label + b"\x00" + transcript)[:TAG_BYTES]
