"""What a peer of `kerb bench gateway` must offer.

Rule: a peer is one or more processes of their own, configured for its best honest durability,
which `durability` states; it is started, loaded, measured and stopped by the course.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kerb_tools.bench.brokers import BenchBroker

_READY_S = 60.0
_STOP_S = 10.0


class Missing(Exception):
    """The peer cannot be had on this machine; the text says why."""


class Program(abc.ABC):
    """A program between an inbound and an upstream broker, as a process of its own."""

    name = ""
    durability = ""
    upstream_topic = "#"
    mark = b""  # stands once in each reading upstream
    identity = re.compile(b"")  # its groups are a reading's identity upstream
    inbound_settings = ""  # for the inbound broker, when the peer lives in it
    ready_line = b""  # in the peer's log

    def __init__(self, folder: Path, inbound: BenchBroker, upstream: BenchBroker) -> None:
        self.folder, self.inbound, self.upstream = folder, inbound, upstream
        self._process: asyncio.subprocess.Process | None = None

    @abc.abstractmethod
    def command(self) -> Sequence[str]:
        """Return what starts it, once its files are in `folder`."""

    @property
    def pids(self) -> list[int]:
        """The processes that are measured."""
        return [] if self._process is None else [self._process.pid]

    @property
    def log(self) -> Path:
        """Its output."""
        return self.folder / "peer.log"

    async def start(self) -> None:
        """Start it and wait until it is ready; RuntimeError with the log's end if it is not."""
        command = self.command()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
            )
        async with asyncio.timeout(_READY_S):
            while not self.is_ready():
                if self._process.returncode is not None:
                    raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-500:]}")
                await asyncio.sleep(0.05)

    def is_ready(self) -> bool:
        """Tell whether it takes messages."""
        return self.ready_line in self.log.read_bytes()

    async def stop(self) -> None:
        """End it."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


class Peer(Program):
    """A program that is given one reading a message."""

    @abc.abstractmethod
    def message(self, number: int) -> tuple[str, bytes]:
        """Return (topic, payload) of reading `number`, from 0 on."""

    @abc.abstractmethod
    def key(self, number: int) -> tuple[bytes, ...]:
        """Return what `identity` finds of reading `number` upstream."""


class JsonPeer(Peer):
    """A peer that is given a reading as plain JSON; the numbers are those of ours."""

    identity = re.compile(rb'"n": ?(\d+)')
    nodes = 200

    def message(self, number: int) -> tuple[str, bytes]:
        node, seq = number % self.nodes, number // self.nodes + 1
        body = (
            f'{{"node":"a4cf{node:08x}","seq":{seq},"n":{number},"distance_mm":{300 + seq % 2000},'
            f'"temperature_c":{seq % 30},"battery_pct":90,"quality":"good"}}'
        )
        return f"up/a4cf{node:08x}", body.encode()

    def key(self, number: int) -> tuple[bytes, ...]:
        return (b"%d" % number,)
