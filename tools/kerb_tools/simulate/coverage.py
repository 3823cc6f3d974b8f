"""Which branch of the sequence table was taken how often.

Rule: the branch is named by what was asked (where the number lies, how it came) together with what
was answered, so that a wrong answer shows as a branch of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

BRANCHES = (
    "next number, live: accepted",
    "next number, authenticated: accepted",
    "above with a gap, live: accepted",
    "above with a gap, authenticated: accepted",
    "above the jump limit, live: quarantined",
    "known digest, live: duplicate",
    "known digest, authenticated: duplicate",
    "other digest, live: tampered",
    "in a gap, authenticated: filled",
    "in a gap, live: held_back",
    "below, authenticated: duplicate",
    "below, live: replay",
)
# The gateway asks nodes for gaps only, and a HELLO makes one of everything up to its last number.
UNREACHABLE = {
    "next number, authenticated: accepted",
    "above with a gap, authenticated: accepted",
}


class Coverage:
    """Counts classifications."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def counting(self, classify: Callable[..., str]) -> Callable[..., str]:
        """Return a classify that counts what it answers."""

        def counted(stream: Any, seq: int, digest: bytes, *, authenticated: bool) -> str:
            answer = classify(stream, seq, digest, authenticated=authenticated)
            how = "authenticated" if authenticated else "live"
            self.taken[f"{_place(stream, seq, digest, answer)}, {how}: {answer}"] += 1
            return answer

        return counted

    def missed(self, taken: Mapping[str, int], least: int) -> list[str]:
        """Return the reachable branches that were taken fewer than `least` times."""
        wanted: Iterable[str] = (name for name in BRANCHES if name not in UNREACHABLE)
        return [name for name in wanted if taken.get(name, 0) < least]


def _place(stream: Any, seq: int, digest: bytes, answer: str) -> str:
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
