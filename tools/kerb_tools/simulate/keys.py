"""What a message of the outbox is known by, however often it is sent.

Rule: a key says everything but the message's place in the outbox, which it gets when it is sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

_LOSS = ("node", "epoch", "first_seq", "last_seq", "reason")
_PLACE = ("gw_epoch", "outbox_no")
Key = tuple[Any, ...]


def is_reading(message: dict[str, Any]) -> bool:
    """Tell whether it is one: readings go by their node's numbers and need no key."""
    return "seq" in message and message["kind"] != "dropped"


def is_loss(message: dict[str, Any]) -> bool:
    """Tell whether it declares numbers lost."""
    return message.get("kind") == "loss"


def key_of(topic: str | None, message: dict[str, Any]) -> Key:
    """Return the key of a message that is no reading."""
    if is_loss(message):
        return ("loss", *(message[name] for name in _LOSS))
    left = {name: message[name] for name in message if name not in _PLACE}
    return (topic, msgspec.json.encode(left))
