"""What was asked of lamps, what each lamp did, and the one result that each command must have.

Rule: what a command is, whom it is for and how long it lives, is known from who published it and
from when it came to the gateway, never from the gateway's rows. A result may say "applied" only if
the lamp's own log says so, and a lamp may apply nothing that has another result already, or whose
life is over; every other result must have its reason. What a result adds is the lamp's word, or
the gateway's where the lamp has said none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kerb_gateway.uplink.mqtt import Incoming
from kerb_wire.words import OUTCOMES, REASONS

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_TRAVEL_MS = 6000  # from the moment that a life is counted to the lamp, a busy bus included
_TAKING_MS = 1000  # from a command's arrival to the moment that its life is counted from
_SECOND_MS = 1000  # a lamp is told its command's life in whole seconds
_SETTLING_MS = 30_000  # for so long after its life a lamp is still asked what became of it
_FADE_MS = 1000  # where a command says nothing of it
_FIELDS = {"command_id", "level_pct", "hold_s", "ttl_s", "fade_ms"}
_LEVEL_MOST_PCT = 100


@dataclass
class Asked:
    """One command: what was asked, and what became of it."""

    node: str
    table: dict[str, Any]
    must_be_refused: bool
    came_ms: list[int] = field(default_factory=list)  # to the process that lives now
    process: int = 0  # which that is
    number: int | None = None
    boot_id: str = ""  # of its life
    expires_ms: int = 0
    restored: bool = False  # open when a backup came back
    at_lamp: str = "none"
    answered_in: int = 0  # the process that was given the lamp's word
    words: set[tuple[str, int, str]] = field(default_factory=set)  # outcome, level, reason
    result: str | None = None


class CommandBook:
    """Commands by their ids and by their numbers."""

    def __init__(self, house: House, found: Callable[..., None]) -> None:
        self._house = house
        self._found = found
        self._asked: dict[str, Asked] = {}
        self._ids: dict[int, str] = {}
        self._newest_no: dict[str, int] = {}  # of each lamp
        self.ended: dict[str, int] = {}

    def published(self, node: str, table: dict[str, Any]) -> None:
        """Somebody has asked for something."""
        mine = any(lamp.node_id == node for lamp in self._house.bus.units.values())
        strange = bool(table.keys() - _FIELDS) or table["level_pct"] > _LEVEL_MOST_PCT
        self._asked[table["command_id"]] = Asked(node, table, strange or not mine)

    def came(self, incoming: Incoming) -> None:
        """A message has come to the process, for the first time or again."""
        try:
            command_id = json.loads(incoming.payload)["command_id"]
        except ValueError:
            return
        asked = self._asked.get(command_id)
        if asked is None:
            return
        if asked.process != self._house.lives:
            asked.process, asked.came_ms = self._house.lives, []
        asked.came_ms.append(self._house.machine.boottime_ms())

    def stored(self, number: int, command_id: str, node: str | None, *row: Any) -> None:
        """The gateway has a command, durably; row: level, fade, hold, boot and end of its life."""
        if number in self._ids:
            self._found("command number used again", str(number), command_id)
        self._ids[number] = command_id
        asked = self._asked.get(command_id)
        if asked is None:
            self._found("a command that nobody asked for", command_id)
            return
        if node is None:
            return  # refused: its result says so
        if asked.must_be_refused:
            self._found("an ill command was taken", command_id, str(asked.table))
        asked.number = number
        level_pct, fade_ms, hold_s, asked.boot_id, asked.expires_ms = row
        table = asked.table
        want = (asked.node, table["level_pct"], table.get("fade_ms", _FADE_MS), table["hold_s"])
        if (node, level_pct, fade_ms, hold_s) != want:
            self._found("stored otherwise than asked", command_id, f"{node}, {row}, not {want}")
        self._newest_no[node] = max(number, self._newest_no.get(node, 0))
        began_ms = asked.expires_ms - table["ttl_s"] * 1000
        came_ms = asked.came_ms if asked.process == self._house.lives else []
        right = any(0 <= began_ms - one_ms <= _TAKING_MS for one_ms in came_ms)
        if asked.boot_id != self._house.machine.boot_id or not right:
            self._found("another life than asked", command_id, f"from {began_ms}, not {came_ms}")

    def restored(self) -> None:
        """What was open when a backup came back has no life any more."""
        for asked in self._asked.values():
            if asked.number is not None and asked.result is None:
                asked.restored = True

    def _lived_ms(self, asked: Asked) -> float:
        """Return for how long its life has been over; below 0: it lives."""
        machine = self._house.machine
        if asked.restored or asked.boot_id != machine.boot_id:
            return float("inf")
        return machine.boottime_ms() - asked.expires_ms

    # --- the lamp ---

    def ended_at_lamp(self, node: str, block: dict[str, int], outcome: str) -> None:
        """A lamp has acted on the command of a written control block, or refused to."""
        number = block["new_command_no"]
        self._house.trace.note(f"lamp {node} {number} {outcome}")
        name = f"{self._ids.get(number)} ({number})"
        if number not in self._ids:
            self._found("unknown command at a lamp", name, node)
        asked = self._asked[self._ids[number]]
        if asked.at_lamp != "none":
            self._found("acted on twice", name, node)
        asked.at_lamp = outcome
        if node != asked.node:
            self._found("at another lamp than asked", name, f"{node}, not {asked.node}")
        table = {"fade_ms": _FADE_MS} | asked.table
        if any(block[f"new_{what}"] != table[what] for what in ("level_pct", "hold_s", "fade_ms")):
            self._found("at a lamp otherwise than asked", name, f"{block}, not {table}")
        if outcome == "applied" and asked.result is not None:
            self._found("applied after its result", name, asked.result)
        lived_ms = self._lived_ms(asked)
        if block["new_life_s"] * 1000 > max(0, -lived_ms) + _TRAVEL_MS:
            self._found("at a lamp with another life", name, f"{block}, {-lived_ms} ms are left")
        if outcome == "applied" and lived_ms > _TRAVEL_MS:
            self._found("applied after its life", name, node)
        if outcome == "expired" and lived_ms < -_SECOND_MS:
            self._found("expired within its life", name, f"{-lived_ms} ms are left")

    def answered(self, number: int, status: dict[str, int]) -> None:
        """The gateway was given the lamp's word on a number, whole and in time."""
        asked = self._asked.get(self._ids.get(number, ""))
        if asked is None:
            return
        asked.answered_in = self._house.lives
        if status["command_no"] == number:
            outcome, reason = OUTCOMES[status["command_outcome"]], REASONS[status["reason"]]
            asked.words.add((outcome, status["target_level_pct"], reason))

    # --- the result ---

    def result(self, message: dict[str, Any]) -> None:
        """A result is durable in the outbox."""
        command_id, result = message["command_id"], message["result"]
        self.ended[result] = self.ended.get(result, 0) + 1
        if command_id is None:
            return
        asked = self._asked.get(command_id)
        if asked is None:
            self._found("a result without a command", command_id, result)
            return
        if asked.result is not None:
            self._found("a second result", command_id, f"{asked.result}, {result}")
        asked.result = result
        why = self._wrong(asked, message) or self._unsaid(asked, message)
        if why:
            self._found("a false result", command_id, f"{result}, but {why}")

    def _wrong(self, asked: Asked, message: dict[str, Any]) -> str:
        """Return why a result cannot be true, or ""."""
        result, number = message["result"], message["command_no"]
        said = (message["node"], number, bool(message.get("restored")))
        is_ = (asked.node, asked.number, asked.restored)
        if said != is_:
            return f"it says {said} of {is_}"
        if number is None:
            right = result == "refused" and asked.must_be_refused
            return "" if right else "nothing was wrong with it"
        if result != "unreachable" and (result == "applied") != (asked.at_lamp == "applied"):
            return f"the lamp says {asked.at_lamp}"
        return self._unfounded(asked, message)

    def _unfounded(self, asked: Asked, message: dict[str, Any]) -> str:
        result, lived_ms = message["result"], self._lived_ms(asked)
        carries_out = result == "applied" and message.get("reason") == "override"
        if carries_out and message["level_pct"] != asked.table["level_pct"]:
            return f"{asked.table['level_pct']} % were asked, not {message['level_pct']}"
        if result == "expired" and lived_ms < -_SECOND_MS:
            return f"it has {-lived_ms} ms to live"
        if result == "refused" and asked.at_lamp != "refused":
            return f"the lamp says {asked.at_lamp}"
        if result == "superseded" and self._newest_no[asked.node] == asked.number:
            return "nothing came after it"
        if result == "unreachable" and lived_ms < _SETTLING_MS:
            return f"its life has been over for {lived_ms} ms only"
        if result == "unreachable" and asked.answered_in == self._house.lives:
            return "the lamp has answered"
        return ""

    def _unsaid(self, asked: Asked, message: dict[str, Any]) -> str:
        """Return which words of a result nobody has said, the lamp or the gateway, or ""."""
        result, detail = message["result"], message.get("detail")
        word = (result, message.get("level_pct"), message.get("reason"))
        if detail is None:
            return "" if word in asked.words else f"the lamp has never said {word}"
        if result == "applied" or word[1:] != (None, None):
            return f"its detail is {detail!r} beside {word}"
        if result == "superseded":
            other = self._asked.get(detail.removeprefix("by "), asked)
            newer = other is not asked and other.node == asked.node
            return "" if newer else f"{detail!r} is no newer one"
        return "" if detail else "it has no detail"

    def finish(self) -> None:
        """Every command has its result."""
        for command_id, asked in self._asked.items():
            if asked.result is None:
                self._found("no result", command_id)
