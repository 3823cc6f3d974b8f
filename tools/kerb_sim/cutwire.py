"""A wire between a gateway and its broker that can be cut: a TCP relay on the loopback interface.

Rule: while it is cut nothing passes and nothing is told, as on a mobile link that has lost its
cell; joining it resets what hung on it, and the ends begin anew.
"""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 65536


class CutWire:
    """Relays connections to one port; start() says where it listens."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @classmethod
    async def start(cls, target_port: int) -> CutWire:
        """Listen on a free port."""
        wire = cls(target_port)
        server = await asyncio.start_server(wire._accept, "127.0.0.1", 0)
        wire._server, wire.port = server, server.sockets[0].getsockname()[1]
        return wire

    def cut(self) -> None:
        """Let nothing through from now on; connections stay open and are dead."""
        self._whole.clear()

    def join(self) -> None:
        """Let new connections through; the old ones are reset."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._whole.set()

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._whole.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(back)
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._relay(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                await self._whole.wait()
                if target.transport.is_closing():
                    break
                target.write(data)
                await target.drain()
        self._writers.discard(target)
        target.transport.abort()
