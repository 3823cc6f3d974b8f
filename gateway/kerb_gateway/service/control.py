"""The local socket by which an operator's command line speaks to the running gateway.

Rule: mode 0600 before anybody can connect; clients, bytes, requests and time are bounded; whatever
a client sends or does not read costs that client its connection and the gateway nothing. A request
that was begun is finished, also when its client has gone: half an answer is never half an action.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from kerb_gateway.errors import StoreError, StoreFull
from kerb_gateway.service import protocol
from kerb_gateway.service.protocol import BadRequest, Request

_CLIENTS = 8
_REQUESTS = 1000  # of one connection
_REQUEST_S = 5.0  # from one line to the next, and to read an answer
_ANSWER_S = 30.0
_STOP_S = 2.0
_GOODBYE_S = 0.1
_MODE = 0o600
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED

Answer = Callable[[Request, str], Awaitable[dict[str, Any]]]
Log = Callable[..., Any]


def user_name(uid: int) -> str:
    """Return the name of a user of this machine, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield a short name of a socket's path: unix(7) allows 107 bytes, a path may be longer."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove_socket(path: Path) -> None:
    """Remove a socket, if there is one; FileExistsError for any other file: it is not ours."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "another file has its name, and is never removed")
    path.unlink(missing_ok=True)


class ControlSocket:
    """The server's end; start() once the database is claimed, so that an old file is nobody's."""

    def __init__(
        self,
        path: Path,
        answer: Answer,
        log: Log,
        *,
        request_s: float = _REQUEST_S,
        answer_s: float = _ANSWER_S,
    ) -> None:
        """answer: called with a request and who asks; request_s: patience with a client."""
        self._path = path
        self._answer = answer
        self._log = log
        self._request_s = request_s
        self._answer_s = answer_s
        self._server: asyncio.Server | None = None
        self._stopping = False
        self._clients: set[asyncio.Task[Any]] = set()
        self._work: set[asyncio.Task[dict[str, Any]]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> bool:
        """Listen; False, and logged, when the socket cannot be made: readings matter more."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_socket(self._path)
            with address(self._path) as short:
                listener.bind(short)
                os.chmod(self._path, _MODE)  # before listen(): until then nobody gets in
            self._server = await asyncio.start_unix_server(
                self._serve, sock=listener, limit=protocol.LINE_MAX_BYTES
            )
        except OSError as error:
            listener.close()
            self._log("no control socket", path=str(self._path), why=error.strerror)
            return False
        return True

    async def run(self) -> None:
        """Wait until a request finds that the store can no longer be trusted; StoreError then."""
        await self._broken

    async def stop(self) -> None:
        """Take no more requests; finish those that were begun."""
        if self._server is None:
            return
        self._server.close()
        self._stopping = True
        if self._work:  # on a full disk they have no end
            await asyncio.wait(self._work, timeout=_STOP_S)
        if self._clients:  # who waits for an answer gets it; who only listens does not hold us up
            await asyncio.wait(self._clients, timeout=_GOODBYE_S)
        for task in [*self._clients, *self._work]:
            task.cancel()
        await asyncio.gather(*self._clients, *self._work, return_exceptions=True)
        with contextlib.suppress(FileExistsError):  # its name was given away meanwhile
            _remove_socket(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._clients) >= _CLIENTS
        self._clients.add(task)
        try:
            if crowded:
                await self._say(writer, protocol.refusal(f"more than {_CLIENTS} clients"))
            else:
                await self._converse(reader, writer, _who(writer))
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client has gone or is too slow, or the gateway stops
        finally:
            self._clients.discard(task)
            await self._part(writer)

    async def _part(self, writer: asyncio.StreamWriter) -> None:
        """Close; what is not yet sent has a last chance, within a bound."""
        writer.close()
        try:
            async with asyncio.timeout(self._request_s):
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str
    ) -> None:
        for _ in range(_REQUESTS):
            try:
                async with asyncio.timeout(self._request_s):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                too_long = f"a line of more than {protocol.LINE_MAX_BYTES} bytes"
                await self._say(writer, protocol.refusal(too_long))
                return
            await self._say(writer, await self._answered(line[:-1], who))
            if self._stopping:
                return

    async def _answered(self, line: bytes, who: str) -> bytes:
        try:
            request = protocol.decode(line)
            work = asyncio.ensure_future(self._answer(request, who))
            self._work.add(work)
            work.add_done_callback(self._finished)
            async with asyncio.timeout(self._answer_s):
                return protocol.answer(await asyncio.shield(work))
        except (BadRequest, StoreError) as error:
            return protocol.refusal(str(error))
        except TimeoutError:  # an OSError too
            return protocol.refusal(
                f"not done within {self._answer_s:g} s, and still being tried: is the disk full?"
            )
        except OSError as error:  # of the request's own, no sign that its client has gone
            return protocol.refusal(f"{error.filename or 'not done'}: {error.strerror or error}")

    def _finished(self, work: asyncio.Task[dict[str, Any]]) -> None:
        self._work.discard(work)
        error = None if work.cancelled() else work.exception()
        trusted = not isinstance(error, StoreError) or isinstance(error, StoreFull)
        if not trusted and error is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _say(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        writer.write(line)
        async with asyncio.timeout(self._request_s):
            await writer.drain()


def _who(writer: asyncio.StreamWriter) -> str:
    """Return the user at the other end, by the kernel's word."""
    end = writer.get_extra_info("socket")
    raw = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return user_name(_CREDENTIALS.unpack(raw)[1])
