"""A command as it comes over MQTT: what it may say, and what is wrong with one that may not.

Rule: strict, because a lamp acts on it: unknown fields, doubled keys, numbers out of range and
what is no text are refused, with the field, the value and the way out.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

_PAYLOAD_MAX_BYTES = 4096

# field: (type, lowest, highest, needed)
_FIELDS = {
    "level_pct": (int, 0, 100, True),
    "hold_s": (int, 1, 604800, True),
    "ttl_s": (int, 1, 86400, True),
    "fade_ms": (int, 0, 65535, False),
}
_ID_MAX = 64
FADE_DEFAULT_MS = 1000


class Message(Protocol):
    """An MQTT message as the uplink hands it over."""

    @property
    def topic(self) -> str:
        """The topic it came on."""

    @property
    def payload(self) -> bytes:
        """Its content."""

    @property
    def retained(self) -> bool:
        """Whether the broker kept it for later."""


class Malformed(Exception):
    """A command message that cannot be taken; `command_id` if one was readable."""

    result = "refused"

    def __init__(self, why: str, command_id: str | None = None) -> None:
        super().__init__(why)
        self.command_id = command_id


class Unowned(Malformed):
    """A command of the group whose life ended before anybody owned its node."""

    result = "expired"


def parse(payload: bytes) -> dict[str, Any]:
    """Return the fields of a command message; Malformed says what is wrong with it."""
    if len(payload) > _PAYLOAD_MAX_BYTES:
        raise Malformed(f"{len(payload)} bytes: at most {_PAYLOAD_MAX_BYTES}")
    try:
        table = json.loads(payload, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(table, dict):
        raise Malformed("not a JSON object")
    command_id = table.pop("command_id", None)
    if (
        not isinstance(command_id, str)
        or not 1 <= len(command_id) <= _ID_MAX
        or not is_text(command_id)
    ):
        raise Malformed(f"command_id: a text of 1 to {_ID_MAX} characters is needed")
    for name in table.keys() - _FIELDS.keys():
        shown = repr(name)[1:-1]  # half a surrogate pair cannot be sent as it is
        raise Malformed(f"{shown}: no such field; known: {', '.join(_FIELDS)}", command_id)
    for name, (kind, low, high, needed) in _FIELDS.items():
        value = table.get(name)
        if value is None and not needed:
            table.pop(name, None)  # null is as good as not there
            continue
        if type(value) is not kind or not low <= value <= high:
            raise Malformed(f"{name} = {value!r}: a whole number from {low} to {high}", command_id)
    return {"fade_ms": FADE_DEFAULT_MS} | table | {"command_id": command_id}


def is_text(value: str) -> bool:
    """Tell whether a text can be stored and sent: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def life_ms(payload: bytes) -> int:
    """Return how long a command lives; one that cannot be read, as long as the shortest."""
    try:
        return int(parse(payload)["ttl_s"]) * 1000
    except Malformed:
        return _FIELDS["ttl_s"][1] * 1000


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table
