"""Who this node is: the provisioned identity in two copies, the epoch, and small numbers in NVS.

Rule: a copy that proves itself mends the other. Where both do and differ, the file wins: only a
person can have put it there, because the node writes it from NVS alone. With both lost the node
says so and goes on with what needs no key, as long as NVS knows its role. NVS lost but the file
intact means a new epoch, so that no counter restarts under the same key.
"""

import os

import cryptolib
import esp32
import machine
from kerb_wire import provisioning
from kerb_wire.errors import WireError

_NAMESPACE = "kerb"
_BLOB = "identity"
_EPOCH = "epoch"
_LOG_BEGAN = "log_began"
_SEQ_BLOCK = "seq_block"
_ROLE_AND_UNIT = "role_unit"
_PATH = "/identity.bin"
_ECB = 1  # cryptolib's mode number


def new_ecb(key):
    """Return the function that encrypts one 16-byte block under `key` (kerb_wire's new_ecb)."""
    return cryptolib.aes(key, _ECB).encrypt


class NvsStore:
    """Numbers and blobs in NVS; writes only what changed, and commits each write."""

    def __init__(self):
        self._nvs = esp32.NVS(_NAMESPACE)

    def get_int(self, key, default):
        """Return the number under `key` (at most 15 characters), or `default`."""
        try:
            return self._nvs.get_i32(key)
        except OSError:
            return default

    def set_int(self, key, value):
        """Store a number of at most 31 bits, durably."""
        if self.get_int(key, None) == value:
            return
        self._nvs.set_i32(key, value)
        self._nvs.commit()

    def get_blob(self, key):
        """Return the bytes under `key`, or b""."""
        buffer = bytearray(128)
        try:
            size = self._nvs.get_blob(key, buffer)
        except OSError:
            return b""
        return bytes(buffer[:size])

    def set_blob(self, key, value):
        """Store bytes, durably."""
        self._nvs.set_blob(key, value)
        self._nvs.commit()


def _proven(blob):
    """Return the row of a blob that is whole and this chip's own, or None."""
    try:
        row = provisioning.unpack(blob)
    except WireError:
        return None
    if row.node_id != own_node_id():
        # A copied flash: two chips with one key would use the same nonces.
        print("kerbstone: the identity is another board's:", row.node_id.hex())
        return None
    return row


def _read_file():
    try:
        # Bounded: another file under this name may be larger than the heap.
        with open(_PATH, "rb") as file:
            return file.read(provisioning.BLOB_MAX_BYTES + 1)
    except OSError:
        return b""


def _write_file(blob):
    try:
        with open(_PATH, "wb") as file:
            file.write(blob)
    except OSError as error:
        print("kerbstone: the second copy of the identity is not written:", error)


def load(store):
    """Return the Identity row of this board, or None if it is unprovisioned.

    Epoch and count stay in NVS, so a new key, role or unit goes on behind the numbers that the
    old one used; the log's records and RTC memory tell by themselves which role made them.
    """
    in_nvs = store.get_blob(_BLOB)
    in_file = _read_file()
    if in_file == in_nvs:
        return _remembered(store, _proven(in_nvs))
    known = _proven(in_nvs)
    row = _proven(in_file)
    if row is not None:
        store.set_blob(_BLOB, in_file)  # a power cut before it: the next boot does it
        if known is not None:
            print("kerbstone: the identity is replaced by /identity.bin")
    elif known is not None:
        _write_file(in_nvs)
    return _remembered(store, row or known)


def _remembered(store, row):
    if row is not None:
        store.set_int(_ROLE_AND_UNIT, row.role << 8 | row.unit)
    return row


def remnant(store):
    """Return an Identity row with the root key None for a board that lost both copies, or None.

    It may measure, store and serve what is auth=none; nothing of it goes on the air.
    """
    known = store.get_int(_ROLE_AND_UNIT, -1)
    if known < 0:
        return None
    return provisioning.IDENTITY_LAYOUT.Row(
        provisioning.MAGIC, 1, known >> 8, known & 0xFF, own_node_id(), None, b""
    )


def epoch_of(store):
    """Return this node's epoch; makes a new random one when NVS does not know any.

    Without the reserved block's end the epoch counts as lost too: a count that began anew under
    the same epoch would use its numbers twice under one key.
    """
    known = store.get_int(_EPOCH, 0)
    if known and store.get_int(_SEQ_BLOCK, 0):
        return known
    fresh = (int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF) or 1
    store.set_int(_LOG_BEGAN, 0)
    store.set_int(_EPOCH, fresh)
    return fresh


def log_began_of(store):
    """Return the number of this epoch's first record, or 0 when it was never noted.

    It outlives the file system, so that numbers whose records went with it are not taken for
    numbers that never had one.
    """
    return store.get_int(_LOG_BEGAN, 0)


def note_log_began(store, seq):
    """Note the number of this epoch's first record, once it is known."""
    if seq and not log_began_of(store):
        store.set_int(_LOG_BEGAN, seq)


def own_node_id():
    """Return the base MAC of this chip (6 bytes)."""
    return bytes(machine.unique_id())
