"""What can go wrong on the wire, split by who is to blame.

Rule: a caller's mistake raises LocalFault, a peer's bytes raise RemoteFault; decoding never
raises anything else.
"""

# Why a peer's bytes were refused (RemoteFault.reason).
TRUNCATED = "truncated"  # shorter than its layout
TRAILING = "trailing"  # longer than its layout
CHECKSUM = "checksum"  # CRC does not match
RANGE = "range"  # a field holds a value that the layout does not allow
KIND = "kind"  # unknown message, record or object kind
MIC = "mic"  # message integrity code does not match: forged, damaged or another key
ORDER = "order"  # a message that this state of the session does not allow, or a replay
SIZE = "size"  # beyond a stated bound


class WireError(Exception):
    """Base of both faults; `blame` is "local" or "remote"."""

    blame = ""


class LocalFault(WireError):
    """The caller handed in a value that cannot be sent."""

    blame = "local"

    def __init__(self, field, value, allowed):
        """field: the field's name; value: what was given; allowed: text that says the way out."""
        super().__init__(f"{field} = {value!r} is not allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class RemoteFault(WireError):
    """The peer sent bytes that break the protocol."""

    blame = "remote"

    def __init__(self, reason, detail):
        """reason: one of this module's constants; detail: text with the field and the value."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
