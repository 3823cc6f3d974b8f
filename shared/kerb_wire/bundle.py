"""A bundle: one or a few records of a node, sealed, as one MQTT message of a Wi-Fi node.

Rule: a bundle is believed by its MIC alone; which of its records are new is decided by (epoch,
seq), so that a replayed bundle changes nothing. `number` is the nonce: it rises with every bundle
of an epoch, is reserved in NVS before use like seq, and is never used twice.

A bundle is version, epoch, number (all in clear and under the MIC), ciphertext of 1 to
BUNDLE_MAX_RECORDS records, 8-byte tag (AES-CCM, nonce = epoch, number, zeros). The answer says up
to which number everything of an epoch is stored or declared lost: version, epoch, seq, 8-byte
AES-CMAC.
"""

import struct

from kerb_wire.ccm import encrypt, opener, same
from kerb_wire.errors import MIC, SIZE, TRUNCATED, LocalFault, RemoteFault
from kerb_wire.keys import cmac, derive, down_key, up_key
from kerb_wire.layout import Field, Layout
from kerb_wire.limits import BUNDLE_MAX_RECORDS
from kerb_wire.records import RECORD_BYTES

BUNDLE_VERSION = 1
TAG_BYTES = 8
TOPICS = "kerb/node/v1"

HEADER_LAYOUT = Layout(
    "BundleHeader",
    (
        Field("version", "u8", BUNDLE_VERSION, BUNDLE_VERSION),
        Field("epoch", "u32"),
        Field("number", "u32", 1),
    ),
)
ACK_LAYOUT = Layout(
    "BundleAck",
    (
        Field("version", "u8", BUNDLE_VERSION, BUNDLE_VERSION),
        Field("epoch", "u32"),
        Field("seq", "u32"),  # everything up to it is stored or declared lost; 0: nothing yet
        Field("tag", f"bytes{TAG_BYTES}"),
    ),
)
HEADER_BYTES = HEADER_LAYOUT.size_bytes
ACK_BYTES = ACK_LAYOUT.size_bytes
BUNDLE_MAX_BYTES = HEADER_BYTES + BUNDLE_MAX_RECORDS * RECORD_BYTES + TAG_BYTES
_LEAST_BYTES = HEADER_BYTES + RECORD_BYTES + TAG_BYTES
_HEADER = "<BII"  # HEADER_LAYOUT's, read for each message that a gateway takes
_EPOCH_AT = 1


def up_topic(node_id: str) -> str:
    """Return where a node (12 hex digits, or "+" for all) publishes its bundles."""
    return f"{TOPICS}/{node_id}/up"


def ack_topic(node_id: str) -> str:
    """Return where a node finds, retained, how far the gateway has come."""
    return f"{TOPICS}/{node_id}/ack"


def bundle_key(new_ecb, root_key: bytes, epoch: int) -> bytes:
    """Return the 16-byte key that seals the bundles of one epoch."""
    return derive(new_ecb, up_key(new_ecb, root_key), b"bundle", struct.pack("<I", epoch))


def ack_key(new_ecb, root_key: bytes, epoch: int) -> bytes:
    """Return the 16-byte key that proves the answers of one epoch."""
    return derive(new_ecb, down_key(new_ecb, root_key), b"bundle", struct.pack("<I", epoch))


def _nonce(header: bytes) -> bytes:
    return header[_EPOCH_AT:] + bytes(13 - (HEADER_BYTES - _EPOCH_AT))


def seal(ecb, epoch: int, number: int, packed) -> bytes:
    """Return a bundle (bytes) of `packed`, a list of 24-byte records, under bundle_key's `ecb`."""
    if not 1 <= len(packed) <= BUNDLE_MAX_RECORDS:
        raise LocalFault("records", len(packed), f"1 to {BUNDLE_MAX_RECORDS}")
    for one in packed:
        if len(one) != RECORD_BYTES:
            raise LocalFault("record", len(one), f"{RECORD_BYTES} bytes")
    header = HEADER_LAYOUT.pack(BUNDLE_VERSION, epoch, number)
    text, tag = encrypt(ecb, _nonce(header), b"".join(packed), header, TAG_BYTES)
    return header + text + tag


def epoch_of(payload: bytes) -> int:
    """Return the epoch that a bundle claims, unverified; RemoteFault if it is no bundle."""
    size = len(payload)
    if size < _LEAST_BYTES:
        raise RemoteFault(TRUNCATED, f"a bundle of {size} bytes")
    if size > BUNDLE_MAX_BYTES or (size - HEADER_BYTES - TAG_BYTES) % RECORD_BYTES:
        raise RemoteFault(SIZE, f"a bundle of {size} bytes")
    version, epoch, number = struct.unpack_from(_HEADER, payload)
    if version != BUNDLE_VERSION or number == 0:
        HEADER_LAYOUT.unpack(payload[:HEADER_BYTES])  # says what is wrong with it
    return epoch


def open_with(decrypt, payload: bytes):
    """Return the records (24-byte strings) of a bundle that epoch_of has taken.

    decrypt: ccm.opener(ecb, TAG_BYTES) over bundle_key's ecb, or what does the same.
    RemoteFault(MIC) if it is forged or altered.
    """
    header = payload[:HEADER_BYTES]
    sealed = payload[HEADER_BYTES:-TAG_BYTES]
    text = decrypt(_nonce(header), sealed, payload[-TAG_BYTES:], header)
    return [text[at : at + RECORD_BYTES] for at in range(0, len(text), RECORD_BYTES)]


def unseal(ecb, payload: bytes):
    """Return (epoch, records) of a bundle under bundle_key's `ecb`; RemoteFault else."""
    return epoch_of(payload), open_with(opener(ecb, TAG_BYTES), payload)


def seal_ack(ecb, epoch: int, seq: int) -> bytes:
    """Return the answer (bytes) under ack_key's `ecb`."""
    body = ACK_LAYOUT.pack(BUNDLE_VERSION, epoch, seq, bytes(TAG_BYTES))[:-TAG_BYTES]
    return body + cmac(ecb, body)[:TAG_BYTES]


def open_ack(ecb, payload: bytes):
    """Return the BundleAck row of an answer; RemoteFault if it is not the gateway's."""
    row = ACK_LAYOUT.unpack(payload)
    if not same(cmac(ecb, payload[:-TAG_BYTES])[:TAG_BYTES], row.tag):
        raise RemoteFault(MIC, "the answer's code does not match")
    return row
