"""Reads lines "target hex" and says, line by line, what this interpreter makes of them.

Rule: one answer a line and flushed, so that whoever started this knows which input ended it; each
input finds the heap swept, so that what came before it does not decide what it gets.
"""

import gc
import sys

import wire_targets

try:
    import node_targets
except ImportError:  # an installed package has no firmware beside it
    node_targets = None


TARGETS = dict(wire_targets.TARGETS)
if node_targets:
    TARGETS.update(node_targets.TARGETS)


def main():
    for line in sys.stdin:
        gc.collect()
        parts = line.split()
        data = bytes.fromhex(parts[1]) if len(parts) > 1 else b""
        sys.stdout.write(wire_targets.say(TARGETS[parts[0]], data) + "\n")


main()
