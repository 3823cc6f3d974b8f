"""Commands: each that was sent must end in exactly one result that the lamp's own log bears out.

Rule: the sender's file says what was asked, the subscriber's what was answered, the lamp's flash
what was done.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerb_check import jsonl
from kerb_check.flash import Flash
from kerb_check.model import Finding

RESULTS = ("applied", "expired", "refused", "superseded", "unreachable")
_LEVELS_PCT = range(0, 101)
_SECOND_S = 1.0  # a lamp is told its command's life in whole seconds
_SETTLING_S = 30.0  # for so long after its life a lamp is asked what became of it


@dataclass
class Outcome:
    """What became of the commands of a run."""

    sent: int = 0
    confirmed: int = 0
    applied: int = 0
    findings: list[Finding] = field(default_factory=list)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the commands of commands.jsonl; SourceError if it is damaged or cut short."""
    rows = jsonl.read(path, closing="end")
    return [row for row in rows if row.get("type") not in ("begin", "end")]


def _distinct_results(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group by command_id; a repetition of the same result, on request too, counts once."""
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        plain = {name: result[name] for name in result if name not in ("t_s", "replayed")}
        if plain not in grouped[result["command_id"]]:
            grouped[result["command_id"]].append(plain)
    for command_id, several in grouped.items():
        # A restored gateway settles what its backup had open; who had a result before keeps it.
        first = [one for one in several if not one.get("restored")]
        grouped[command_id] = first or several
    return grouped


def _lamp_log(flash: dict[str, Flash]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return {(node, command_no): command records}, from the lamps' flash images."""
    log: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for node, image in flash.items():
        for reading in image.readings:
            content = reading.content
            if content["kind"] == "lamp" and content["event"] == "command":
                log[(node, content["command_no"])].append(content)
    return log


def check(
    sent: list[dict[str, Any]], results: list[dict[str, Any]], flash: dict[str, Flash]
) -> Outcome:
    """Return the Outcome; each unconfirmed command has a finding that says why."""
    outcome = Outcome(sent=len(sent))
    grouped = _distinct_results(results)
    log = _lamp_log(flash)
    explained: set[tuple[str, int]] = set()
    came_s = {one["command_id"]: one["t_s"] for one in reversed(results)}
    newest = {command["node"]: command["command_id"] for command in sent}
    for command in sent:
        several = grouped.get(command["command_id"], [])
        problem = _problem(command, several, log, explained) or _unfounded(
            command, several[0], came_s[command["command_id"]], newest[command["node"]], log
        )
        if problem:
            outcome.findings.append(Finding("command unconfirmed", command["command_id"], problem))
            continue
        outcome.confirmed += 1
        outcome.applied += grouped[command["command_id"]][0]["result"] == "applied"
    for node, number in log.keys() - explained:
        if any(record["outcome"] == "applied" for record in log[(node, number)]):
            outcome.findings.append(
                Finding("command from nowhere", f"{node} command {number}", "applied, never sent")
            )
    return outcome


def _problem(
    command: dict[str, Any],
    results: list[dict[str, Any]],
    log: dict[tuple[str, int], list[dict[str, Any]]],
    explained: set[tuple[str, int]],
) -> str | None:
    if len(results) != 1:
        return f"{len(results)} different results, not 1: {results}"
    result = results[0]
    if result["result"] not in RESULTS:
        return f"result {result['result']!r} is not one of {RESULTS}"
    if result["node"] != command["node"]:
        return f"sent to {command['node']}, answered for {result['node']}"
    number = result.get("command_no")
    key = (command["node"], number if number is not None else -1)
    if key in explained:
        return f"command number {number} stands behind two commands"
    explained.add(key)
    applied = [record for record in log.get(key, []) if record["outcome"] == "applied"]
    if result["result"] == "applied":
        if len(applied) != 1:
            return f"said to be applied, but the lamp's log applied it {len(applied)} times"
        if applied[0]["level_pct"] != command["level_pct"]:
            return (
                f"asked for {command['level_pct']} %, the lamp logged {applied[0]['level_pct']} %"
            )
    elif applied:
        return f"said to be {result['result']}, but the lamp's log applied it"
    return None


def _unfounded(
    command: dict[str, Any],
    result: dict[str, Any],
    came_s: float,
    newest: str,
    log: dict[tuple[str, int], list[dict[str, Any]]],
) -> str | None:
    """Return why a result has no reason; newest: what the lamp was asked last.

    came_s: when the result arrived, on the clock that also says when the command was sent. What
    was open when a backup came back had no life any more.
    """
    word, number = result["result"], result.get("command_no")
    least_s = {"expired": -_SECOND_S, "unreachable": _SETTLING_S}.get(word)
    if least_s is not None and "ttl_s" in command and not result.get("restored"):
        lived_s = came_s - command["t_s"]
        if lived_s < command["ttl_s"] + least_s:
            return f"said to be {word} after {lived_s:.1f} s, with a life of {command['ttl_s']} s"
    if word == "superseded" and newest == command["command_id"]:
        return "said to be superseded, but no later one was sent to its lamp"
    if word == "refused" and number is None and command["level_pct"] in _LEVELS_PCT:
        return "refused, though nothing is wrong with it"
    if word == "refused" and number is not None:
        said = [record["outcome"] for record in log.get((command["node"], number), [])]
        if "refused" not in said:
            return f"said to be refused, but the lamp's log says {said}"
    return _another_level(command, result)


def _another_level(command: dict[str, Any], result: dict[str, Any]) -> str | None:
    """Return which other level a lamp that carries the command out says; else it has moved on.

    An answer that was asked for again may come after the lamp's reboot, or after the hold.
    """
    asked_pct, said_pct = command["level_pct"], result.get("level_pct")
    if (
        result["result"] != "applied"
        or result.get("reason") != "override"
        or said_pct == asked_pct
    ):
        return None
    return f"asked for {asked_pct} %, answered {said_pct} %"
