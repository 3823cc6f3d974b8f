"""The bus: every byte takes its time, everybody hears everybody, two at once are garbled.

Rule: the gateway opens one pty as its serial port, each lamp another; what they write is paced at
the baud rate and handed to all the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tty
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

_CHARACTER_BITS = 11
_CHUNK_BYTES = 256
_QUEUE_BYTES = 4096


@dataclass
class _End:
    name: str
    master: int
    slave: int
    path: Path
    waiting: deque[int] = field(default_factory=deque)
    dead: bool = False
    late_ms: int = 0
    garble: float = 0.0
    sending: asyncio.Task[None] | None = None


class Bus:
    """One bus; attach() ends, then start()."""

    def __init__(self, baudrate: int, seed: int, noise: float = 0.0) -> None:
        """noise: probability that one byte arrives with a wrong bit."""
        self._byte_s = _CHARACTER_BITS / baudrate
        self._random = random.Random(seed)
        self._noise = noise
        self._ends: dict[str, _End] = {}
        self._silent_until = 0.0
        self._talking = 0
        self.lost_bytes = 0
        self.collisions = 0

    def attach(self, name: str) -> Path:
        """Add an end; returns the path of its serial port."""
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        path = Path(os.ttyname(slave))
        self._ends[name] = _End(name, master, slave, path)
        return path

    def start(self) -> None:
        """Begin to carry bytes."""
        loop = asyncio.get_running_loop()
        for end in self._ends.values():
            loop.add_reader(end.master, self._readable, end)

    def silence(self, duration_s: float) -> None:
        """Let nothing through for a while: a cut cable."""
        self._silent_until = asyncio.get_running_loop().time() + duration_s

    def trouble(
        self, name: str, *, dead: bool = False, late_ms: int = 0, garble: float = 0.0
    ) -> None:
        """Let an end be dead, answer late, or garble its bytes with this probability."""
        end = self._ends[name]
        end.dead, end.late_ms, end.garble = dead, late_ms, garble

    def _readable(self, end: _End) -> None:
        try:
            data = os.read(end.master, _CHUNK_BYTES)
        except OSError:
            return
        if end.dead:
            self.lost_bytes += len(data)
            return
        room = _QUEUE_BYTES - len(end.waiting)
        self.lost_bytes += max(0, len(data) - room)
        end.waiting.extend(data[:room])
        if end.sending is None or end.sending.done():
            end.sending = asyncio.ensure_future(self._send(end))

    async def _send(self, end: _End) -> None:
        """Carry what an end has written, byte by byte in time."""
        if end.late_ms:
            await asyncio.sleep(end.late_ms / 1000)
        loop = asyncio.get_running_loop()
        self._talking += 1
        collided = self._talking > 1
        self.collisions += collided
        began, carried = loop.time(), 0
        try:
            while end.waiting:
                # A byte is heard when its last bit has passed; the loop's timer is coarser than
                # that, so carry what is due by now.
                await asyncio.sleep(self._byte_s)
                due = max(1, int((loop.time() - began) / self._byte_s) - carried)
                chunk = bytes(end.waiting.popleft() for _ in range(min(due, len(end.waiting))))
                carried += len(chunk)
                self._deliver(end, chunk, collided or self._talking > 1)
        finally:
            self._talking -= 1

    def _deliver(self, sender: _End, chunk: bytes, collided: bool) -> None:
        if asyncio.get_running_loop().time() < self._silent_until:
            self.lost_bytes += len(chunk)
            return
        heard = bytes(self._spoil(octet, sender, collided) for octet in chunk)
        for end in self._ends.values():
            if end is not sender and not end.dead:
                with contextlib.suppress(BlockingIOError):
                    os.write(end.master, heard)

    def _spoil(self, octet: int, sender: _End, collided: bool) -> int:
        chance = 0.5 if collided else max(self._noise, sender.garble)
        if chance and self._random.random() < chance:
            return octet ^ (1 << self._random.randrange(8))
        return octet

    def close(self) -> None:
        """Take the bus down."""
        loop = asyncio.get_running_loop()
        for end in self._ends.values():
            loop.remove_reader(end.master)
            if end.sending is not None:
                end.sending.cancel()
            os.close(end.master)
            os.close(end.slave)
        self._ends = {}
