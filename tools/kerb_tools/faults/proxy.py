"""A TCP proxy between gateway and broker that is slow, or lets a connection go half-open.

Rule: it buffers one chunk a direction and nothing more; what it does not carry waits with the
sender, as behind a real link. A half-open connection is never closed from here: the peers must
find out by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 4096


class Proxy:
    """Carries connections to 127.0.0.1:`target`; `port` is its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._generation = 0  # connections of an older one are half-open
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def slow(self, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """Let each chunk take delay_s and its share of the rate; 0: no rate."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def half_open(self) -> None:
        """Carry nothing more of what is connected now; new connections are carried."""
        self._generation += 1

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        generation = self._generation
        for source, sink in ((reader, upstream[1]), (upstream[0], writer)):
            task = asyncio.ensure_future(self._carry(source, sink, generation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, generation: int
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                pause_s = self._delay_s
                if self._bytes_per_s:
                    pause_s += len(data) / self._bytes_per_s
                await asyncio.sleep(pause_s)
                if generation != self._generation:
                    await asyncio.Event().wait()  # until the proxy goes
                sink.write(data)
                await sink.drain()
        if generation == self._generation:
            sink.close()
        else:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
