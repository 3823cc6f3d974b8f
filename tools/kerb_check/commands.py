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
    for command in sent:
        problem = _problem(command, grouped.get(command["command_id"], []), log, explained)
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
