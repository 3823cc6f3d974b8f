"""What was asked of lamps, what each lamp did, and the one result that each command must have.

Rule: a result may say "applied" only if the lamp's own log says so, and a lamp may apply nothing
that has another result already, or whose life is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_TRAVEL_MS = 6000  # from the moment that a life is counted to the lamp, a busy bus included


class CommandBook:
    """Commands by their ids and by their numbers."""

    def __init__(self, house: House, found: Callable[..., None]) -> None:
        self._house = house
        self._found = found
        self._results: dict[str, str | None] = {}
        self._ids: dict[int, str] = {}
        self._lives: dict[int, tuple[str, int]] = {}
        self._at_lamp: dict[int, str] = {}
        self.ended: dict[str, int] = {}

    def published(self, command_id: str) -> None:
        """Somebody has asked for something, for the first time or again."""
        self._results.setdefault(command_id, None)

    def stored(self, number: int, command_id: str, expires_ms: int | None) -> None:
        """The gateway has a command, durably."""
        if number in self._ids:
            self._found("command number used again", str(number), command_id)
        self._ids[number] = command_id
        if expires_ms is not None:
            self._lives[number] = (self._house.machine.boot_id, expires_ms)

    def restored(self) -> None:
        """What was open when a backup came back has no life any more."""
        for number, command_id in self._ids.items():
            if self._results.get(command_id) is None and number in self._lives:
                self._lives[number] = ("a boot that is over", 0)

    def ended_at_lamp(self, node: str, number: int, outcome: str) -> None:
        """A lamp has acted on a number, or refused to."""
        self._house.trace.note(f"lamp {node} {number} {outcome}")
        name = f"{self._ids.get(number)} ({number})"
        if number not in self._ids:
            self._found("unknown command at a lamp", name, node)
        if number in self._at_lamp:
            self._found("acted on twice", name, node)
        self._at_lamp[number] = outcome
        result = self._results[self._ids[number]]
        if outcome == "applied" and result is not None:
            self._found("applied after its result", name, result)
        boot_id, expires_ms = self._lives[number]
        machine = self._house.machine
        if outcome == "applied" and (
            machine.boot_id != boot_id or machine.boottime_ms() > expires_ms + _TRAVEL_MS
        ):
            self._found("applied after its life", name, node)

    def result(self, message: dict[str, Any]) -> None:
        """A result is durable in the outbox."""
        command_id, result = message["command_id"], message["result"]
        self.ended[result] = self.ended.get(result, 0) + 1
        if command_id is None:
            return
        if command_id not in self._results:
            self._found("a result without a command", command_id, result)
        if self._results[command_id] is not None:
            self._found("a second result", command_id, f"{self._results[command_id]}, {result}")
        self._results[command_id] = result
        word = self._at_lamp.get(message["command_no"] or 0, "none")
        if result != "unreachable" and (result == "applied") != (word == "applied"):
            self._found("a false result", command_id, f"{result}, but the lamp says {word}")

    def finish(self) -> None:
        """Every command has its result."""
        for command_id, result in self._results.items():
            if result is None:
                self._found("no result", command_id)
