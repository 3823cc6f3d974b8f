"""What can be in the way of a fault campaign, said in a sentence.

Rule: a machine that lacks a part is told which; it is never taken for a store that held.
"""

from __future__ import annotations


class FaultsError(Exception):
    """The campaign cannot run here; the message says what is missing."""
