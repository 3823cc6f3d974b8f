"""Which changes of a lamp's faults are worth a record: the flash and the bus are not for flicker.

Rule: at most one record in `gap_ms`, and while a lamp cycles its failures make none of their own:
the cycling has been said. What is held back is said later, if it still is so.
"""

from kerb_wire.words import FAULT_CYCLING, FAULT_LAMP_FAILURE


def _telling(bits):
    return bits & ~FAULT_LAMP_FAILURE if bits & FAULT_CYCLING else bits


class Announcer:
    """Remembers what was said last, and when."""

    def __init__(self, gap_ms, bits):
        """bits: what the newest record in the log says."""
        self._gap_ms = gap_ms
        self._said = bits
        self._said_ms = None

    def due(self, bits, now_ms):
        """Tell whether `bits` ask for a record of their own now."""
        if _telling(bits) == _telling(self._said):
            return False
        return self._said_ms is None or now_ms - self._said_ms >= self._gap_ms

    def said(self, bits, now_ms):
        """A record of a change of faults carries `bits`."""
        self._said = bits
        self._said_ms = now_ms
