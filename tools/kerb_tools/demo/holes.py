"""Which outbox numbers of a gateway never came: what a consumer asks it to send once more.

Rule: every message names its gateway's epoch and its place in the outbox, so a hole below the
newest number is a message that the broker has acknowledged and lost, or one that it refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Range = tuple[int, int]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a subscriber's file, which may still grow."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _messages(gateway: str, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in lines:
        payload = row.get("payload")
        if row.get("topic", "").split("/")[3:4] != [gateway]:
            continue
        for one in payload if isinstance(payload, list) else [payload]:
            if isinstance(one, dict) and "outbox_no" in one:
                yield one


def of(gateway: str, lines: Iterable[dict[str, Any]]) -> list[Range]:
    """Return the ranges, both ends included, that are missing of a gateway's newest epoch.

    The first epoch begins at 1; a later one where it was first heard.
    """
    seen: dict[str, set[int]] = {}
    for message in _messages(gateway, lines):
        seen.setdefault(message["gw_epoch"], set()).add(message["outbox_no"])
    if not seen:
        return []
    numbers = sorted(list(seen.values())[-1])
    before = 0 if len(seen) == 1 else numbers[0] - 1
    missing = []
    for number in numbers:
        if number > before + 1:
            missing.append((before + 1, number - 1))
        before = number
    return missing


def answered(lines: Iterable[dict[str, Any]]) -> set[str]:
    """Return the command_ids that have a result."""
    results = (row["payload"] for row in lines if row.get("topic", "").endswith("/result"))
    return {str(one.get("command_id")) for one in results if isinstance(one, dict)}
