"""Which branch of the sequence table was taken how often.

Rule: the branch is named by what was asked (where the number lies, how it came) together with what
was answered, so that a wrong answer shows as a branch of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

BRANCHES = (
    "next number, live: accepted",
    "next number, authenticated: accepted",
    "above with a gap, live: accepted",
    "above with a gap, authenticated: accepted",
    "above the jump limit, live: quarantined",
    "after a restore, live: quarantined",
    "known digest, live: duplicate",
    "known digest, authenticated: duplicate",
    "other digest, live: tampered",
    "in a gap, authenticated: filled",
    "in a gap, live: held_back",
    "below, authenticated: duplicate",
    "below, live: replay",
)


class Coverage:
    """Counts classifications."""

    def __init__(self, classified: Callable[..., None]) -> None:
        """classified: is told of each, too."""
        self.taken: Counter[str] = Counter()
        self._classified = classified

    def counting(self, classify: Callable[..., str]) -> Callable[..., str]:
        """Return a classify that counts what it answers."""

        def counted(stream: Any, seq: int, digest: bytes, *, authenticated: bool) -> str:
            answer = classify(stream, seq, digest, authenticated=authenticated)
            how = "authenticated" if authenticated else "live"
            self.taken[f"{_place(stream, seq, digest, answer)}, {how}: {answer}"] += 1
            self._classified(stream, seq, answer, live=not authenticated)
            return answer

        return counted


def _place(stream: Any, seq: int, digest: bytes, answer: str) -> str:
    if stream.held and answer == "quarantined":
        return "after a restore"
    if seq > stream.last_seq:
        if answer == "quarantined":
            return "above the jump limit"
        return "next number" if seq == stream.last_seq + 1 else "above with a gap"
    if stream.in_gap(seq):
        return "in a gap"
    known = stream.recent.get(seq)
    if known is None:
        return "below"
    return "known digest" if known == digest else "other digest"
