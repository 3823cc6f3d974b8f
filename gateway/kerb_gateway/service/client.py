"""The command line's end of the control socket.

Rule: every wait and every answer is bounded; no gateway there is NotRunning, which is no mistake.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from kerb_gateway.errors import GatewayError
from kerb_gateway.service.control import address
from kerb_gateway.service.protocol import Request

_ANSWER_MAX_BYTES = 4 * 1024 * 1024
_TIMEOUT_S = 60.0


class NotRunning(GatewayError):
    """Nobody listens at the socket."""


class Refused(GatewayError):
    """The gateway said no, or nothing that can be understood; the text says why."""


def ask(path: Path, request: Request, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """Send one request and return the answer's fields; NotRunning, Refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout_s)
        try:
            with address(path) as short:
                channel.connect(short)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NotRunning(f"{path}: no gateway listens here") from None
        except OSError as error:
            raise Refused(f"{path}: {error.strerror or error}") from error
        try:
            channel.sendall(msgspec.json.encode(request) + b"\n")
            line = _line(channel)
        except OSError as error:  # a timeout is one too
            raise Refused(f"{path}: the gateway does not answer: {error}") from error
    return _understood(path, line)


def _line(channel: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) <= _ANSWER_MAX_BYTES:
        more = channel.recv(65536)
        if not more:
            break
        data += more
    return bytes(data)


def _understood(path: Path, line: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(f"{path}: the gateway ended in the middle of its answer") from None
    if fields.pop("ok", False) is not True:
        raise Refused(str(fields.get("why", "refused")))
    return fields
