"""What the recorded gateway had said at each moment of the recording, and must hold to.

Rule: a mark is a line in a file of the watched directory, so it lies between the disk's own
changes exactly where it was said.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kerb_tools.faults.oplog import WRITE, Change

FILE = ".marks"


class Marks:
    """Writes marks."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory.resolve() / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, what: str, **fields: Any) -> None:
        """Put a mark behind what has reached the disk so far."""
        os.write(self._fd, json.dumps({"what": what} | fields).encode() + b"\n")


@dataclass(frozen=True)
class Promise:
    """What must hold if the power goes now."""

    opened: bool = False
    damaged: bool = False  # the file that lay there at first is: it may be put aside
    gw_epoch: str = ""
    committed: str = ""  # fingerprint after the last transaction that was reported
    begun: bool = False  # another one may or may not be there
    acked: dict[int, int] = field(default_factory=dict)  # stream_no -> number acked to the node
    handed: int = 0  # the highest outbox number that the broker has seen
    ended: frozenset[int] = frozenset()  # outbox numbers that the broker has acknowledged
    done: int = 0  # the done mark that the recording began with


def follow(promise: Promise, mark: dict[str, Any]) -> Promise:
    """Return what holds after a mark."""
    what = mark["what"]
    if what == "opened":
        return replace(
            promise,
            opened=True,
            gw_epoch=mark["gw_epoch"],
            committed=mark["fingerprint"],
            begun=False,
            done=promise.done if promise.opened else mark["done"],
        )
    if what == "begin":
        return replace(promise, begun=True)
    if what == "committed":
        return replace(promise, begun=False, committed=mark["fingerprint"])
    if what == "acked":
        return replace(promise, acked=promise.acked | {mark["stream_no"]: mark["seq"]})
    if what == "handed":
        return replace(promise, handed=max(promise.handed, mark["outbox_no"]))
    if what == "puback":
        return replace(promise, ended=promise.ended | {mark["outbox_no"]})
    raise ValueError(f"no such mark: {what}")


def marks_in(change: Change) -> list[dict[str, Any]] | None:
    """Return the marks that a change holds; None: it is a change of the store's own files."""
    if change.name != FILE:
        return None
    if change.kind != WRITE:
        return []
    return [json.loads(line) for line in change.data.splitlines()]


def next_fingerprints(changes: list[Change]) -> list[str]:
    """Return for each change the fingerprint of the state after the transaction then begun."""
    found, coming = [""] * len(changes), ""
    for index in range(len(changes) - 1, -1, -1):
        for mark in reversed(marks_in(changes[index]) or []):
            if mark["what"] in ("committed", "opened"):
                coming = mark["fingerprint"]
        found[index] = coming
    return found
