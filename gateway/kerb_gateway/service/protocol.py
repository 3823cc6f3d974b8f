"""What an operator may ask of a gateway: one JSON object a line, one JSON object back.

Rule: a request is exactly as described here or it is refused with a sentence; whatever bytes come
in, the only error that leaves this file is BadRequest.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import msgspec

from kerb_gateway.errors import GatewayError

LINE_MAX_BYTES = 16384
LETTERS_MAX = 200  # of one request, one transaction, one answer
NUMBER_MAX = 2**53 - 1

Number = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]
Numbers = Annotated[list[Number], msgspec.Meta(min_length=1, max_length=LETTERS_MAX)]
Why = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
CommandId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

Wanted = TypeVar("Wanted")


class BadRequest(GatewayError):
    """A request that cannot be taken; the text says why."""


class _Request(msgspec.Struct, forbid_unknown_fields=True, tag_field="op"):
    pass


class ListLetters(_Request, tag="letters.list"):
    """The dead letters with numbers above `after`, at most LETTERS_MAX."""

    after: Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)] = 0


class ReplayLetters(_Request, tag="letters.replay"):
    """Send these again; `up_to` instead: the oldest LETTERS_MAX up to that number."""

    numbers: Numbers | None = None
    up_to: Number | None = None


class DropLetters(_Request, tag="letters.drop"):
    """Give these up, and say why."""

    numbers: Numbers
    why: Why


class ReplayRows(_Request, tag="replay"):
    """Publish kept outbox rows once more."""

    first: Number
    last: Number


class ReplayState(_Request, tag="replay.state"):
    """How far a replay is."""

    replay_no: Number


class Backup(_Request, tag="backup"):
    """Begin to copy the database to a file that the gateway's user can make."""

    file: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class BackupState(_Request, tag="backup.state"):
    """How far the newest backup is."""


class Status(_Request, tag="status"):
    """How the gateway is."""


Request = (
    ListLetters
    | ReplayLetters
    | DropLetters
    | ReplayRows
    | ReplayState
    | Backup
    | BackupState
    | Status
)


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outbox numbers from..to, both included."""

    first: Number = msgspec.field(name="from")
    last: Number = msgspec.field(name="to")


class GatewayCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command to the gateway itself, as it comes over MQTT."""

    command_id: CommandId
    replay: Span


class _Named(msgspec.Struct, frozen=True):
    command_id: CommandId


def decode(line: bytes, wanted: Any = Request) -> Any:
    """Return the request in a line (without its end); BadRequest says what is wrong with it.

    wanted: another type than a request of the socket.
    """
    if len(line) > LINE_MAX_BYTES:
        raise BadRequest(f"{len(line)} bytes: at most {LINE_MAX_BYTES}")
    try:
        request = msgspec.json.decode(line, type=wanted)
        json.loads(line, object_pairs_hook=_no_doubles)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRequest(str(error) or "nested too deeply") from None
    return request


def _no_doubles(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")


def command_id_of(payload: bytes) -> str | None:
    """Return the id of a command that could not be taken, if one is readable."""

    try:
        return msgspec.json.decode(payload, type=_Named).command_id
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def answer(fields: dict[str, Any]) -> bytes:
    """Return the line that says yes."""
    return msgspec.json.encode({"ok": True} | fields) + b"\n"


def refusal(why: str) -> bytes:
    """Return the line that says no."""
    return msgspec.json.encode({"ok": False, "why": why}) + b"\n"
