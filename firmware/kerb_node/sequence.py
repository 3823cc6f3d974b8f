"""The sequence number: rises by one a record, across boots, and is never used twice in an epoch.

Rule: numbers are reserved in blocks in NVS *before* the first of them is used; after a power
loss the count goes on at the block's end, and what was skipped is answered as `unused`.
"""

from kerb_wire.limits import SEQ_BLOCK

_KEY = "seq_block"


class Sequence:
    """Hands out numbers; `store` keeps the end of the reserved block (get_int, set_int)."""

    def __init__(self, store, next_seq=None, block_end=None):
        """next_seq, block_end: as kept over a deep sleep; None after a loss of power."""
        self._store = store
        if next_seq is None:
            # Every number below the block's end may have been used: go on behind it.
            next_seq = store.get_int(_KEY, 1)
            block_end = next_seq
        self.next_seq = next_seq
        self.block_end = block_end

    def take(self):
        """Return the next number; reserves a block first when the last one is used up."""
        if self.next_seq >= self.block_end:
            self.block_end = self.next_seq + SEQ_BLOCK
            self._store.set_int(_KEY, self.block_end)
        number = self.next_seq
        self.next_seq += 1
        return number

    @property
    def last_seq(self):
        """The newest number used or skipped; 0 before the first."""
        return self.next_seq - 1
