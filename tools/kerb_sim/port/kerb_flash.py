"""The board's flash: a NOR chip in a file, which can lose its power at any write.

Rule: an erase sets every bit of a block, a write only clears bits (as NOR flash does); each of
them counts, and the one at which the power goes is torn.
"""

import kerb_host

BLOCK_BYTES = 4096
# Made before the application starts: an erase on the real chip takes nothing from the heap.
_ERASED = b"\xff" * BLOCK_BYTES

operations = 0
_cut_at = 0


def cut_at(number):
    """Let the power go at the operation `number` from now (1: the next); 0: never."""
    global _cut_at
    _cut_at = number


def count():
    """Count one flash operation; True when the power goes during it."""
    global operations
    operations += 1
    return operations == _cut_at


class Flash:
    """A block device for littlefs (the extended interface of the vfs module)."""

    def __init__(self, path, blocks):
        self._file = open(path, "r+b")
        self._blocks = blocks

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * BLOCK_BYTES + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        at = block * BLOCK_BYTES + offset
        size = len(buffer)
        torn = count()
        if torn:
            size = size // 2
        self._file.seek(at)
        held = self._file.read(size)
        for index in range(size):
            if buffer[index] & ~held[index] & 0xFF:
                raise OSError(5)  # EIO: a bit cannot be set without an erase
        self._file.seek(at)
        self._file.write(buffer if not torn else bytes(buffer[:size]))
        if torn:
            self._file.flush()
            kerb_host.halt("power_lost", operations)

    def ioctl(self, operation, argument):
        if operation == 3:  # sync
            self._file.flush()
        elif operation == 4:
            return self._blocks
        elif operation == 5:
            return BLOCK_BYTES
        elif operation == 6:  # erase
            torn = count()
            size = BLOCK_BYTES // 2 if torn else BLOCK_BYTES
            self._file.seek(argument * BLOCK_BYTES)
            self._file.write(memoryview(_ERASED)[:size])
            if torn:
                self._file.flush()
                kerb_host.halt("power_lost", operations)
            return 0


class SteadyFlash(Flash):
    """The same under a console: Ctrl-C is raised after an operation, never inside littlefs.

    On the port no Python runs below littlefs, so nothing can be raised there; here an operation
    that was broken off is done again (each of them may be) and the interrupt comes later.
    """

    def readblocks(self, block, buffer, offset=0):
        try:
            super().readblocks(block, buffer, offset)
        except KeyboardInterrupt:
            super().readblocks(block, buffer, offset)
            kerb_host.call("interrupt_later")

    def writeblocks(self, block, buffer, offset=0):
        try:
            super().writeblocks(block, buffer, offset)
        except KeyboardInterrupt:
            super().writeblocks(block, buffer, offset)
            kerb_host.call("interrupt_later")

    def ioctl(self, operation, argument):
        try:
            return super().ioctl(operation, argument)
        except KeyboardInterrupt:
            result = super().ioctl(operation, argument)
            kerb_host.call("interrupt_later")
            return result
