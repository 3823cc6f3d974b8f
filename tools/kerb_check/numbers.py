"""What messages call themselves upstream: `id`, and their place (gw_epoch, outbox_no).

Rule: a place is one message for ever, of whatever kind and however often it comes; it is compared
within one gateway, whose name the topic says.
"""

from __future__ import annotations

from typing import Any

from kerb_check.delivered import Delivered
from kerb_check.model import Finding

_AT_SENDING = ("time", "replayed")  # known better the next time, or said only on request
_LOSS = ("kind", "node", "epoch", "first_seq", "last_seq", "reason")
_READING = ("node", "epoch", "seq", "id")


def check(delivered: Delivered) -> list[Finding]:
    """Return every message without a place, at another's place, or called otherwise."""
    findings = []
    first: dict[tuple[str, str, int], dict[str, Any]] = {}
    for gateway, message in delivered.placed:
        name, kind = _name(message), message.get("kind")
        gw_epoch, outbox_no = message.get("gw_epoch"), message.get("outbox_no")
        if gw_epoch is None or outbox_no is None:
            findings.append(Finding("no place", name, f"gw_epoch {gw_epoch}, row {outbox_no}"))
            continue
        before = first.setdefault((gateway, gw_epoch, outbox_no), message)
        if before is not message and _said(before) != _said(message):
            place = f"{gateway} {gw_epoch} {outbox_no}"
            findings.append(Finding("one place for two", place, f"{_name(before)} and {name}"))
        if kind == "found" and message["id"] != f"found/{message['of']}":
            findings.append(Finding("another id", name, f"takes back {message['of']}"))
        if _is_reading(message) and name != _numbers(message):
            findings.append(Finding("another id", _numbers(message), f"called {name}"))
    return findings


def _is_reading(message: dict[str, Any]) -> bool:
    return message.get("kind") in ("fill", "lamp")


def _numbers(message: dict[str, Any]) -> str:
    return f"{message['node']}/{message['epoch']}/{message['seq']}"


def _name(message: dict[str, Any]) -> str:
    return str(message.get("id", message.get("command_id", message.get("what"))))


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same when a message comes again."""
    if _is_reading(message):  # its content is compared with what its node stored
        return {name: message.get(name) for name in _READING}
    if message.get("kind") == "loss":  # a restore gives a tail that stands a new id
        return {name: message.get(name) for name in _LOSS}
    return {name: message[name] for name in message if name not in _AT_SENDING}
