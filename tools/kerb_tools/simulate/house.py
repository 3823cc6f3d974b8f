"""One gateway in its house: its machine, disk, radios, bus, connection, and its lives.

Rule: a life ends by a crash, an error of the disk or a stop; what is left is the database, and
after each end the judge looks at it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from kerb_gateway.config import Config, Secrets
from kerb_gateway.errors import StoreError, StoreFull
from kerb_gateway.uplink.topics import Topics

from kerb_tools.simulate.bus import Bus
from kerb_tools.simulate.chance import generator
from kerb_tools.simulate.disk import new_disk
from kerb_tools.simulate.gateway import SimulatedGateway
from kerb_tools.simulate.judge import Judge
from kerb_tools.simulate.loop import SimulatedLoop
from kerb_tools.simulate.machine import Machine
from kerb_tools.simulate.timeline import Crash

if TYPE_CHECKING:
    from kerb_tools.simulate.air import Adapter
    from kerb_tools.simulate.client import Client
    from kerb_tools.simulate.street import Street

_DOWN_S = (0.5, 30.0)
_OFF_S = (40.0, 7200.0)


class House:
    """Everything that belongs to one gateway."""

    def __init__(self, street: Street, name: str, *, grouped: bool) -> None:
        self.street, self.name = street, name
        self.timeline, self.trace = street.timeline, street.trace
        self.topics = Topics("north", name, grouped=grouped)
        self.machine = Machine(self.timeline, f"{name}-boot", self._generator("machine"))
        self.disk = new_disk(self)
        self.judge = Judge(self)
        self.bus = Bus(self, self._generator("bus"))
        self.adapters: list[Adapter] = []  # of the process that is alive; none while it is not
        self.client: Client | None = None  # likewise
        self.gateway: SimulatedGateway | None = None
        self.ready: deque[asyncio.Handle] = deque()
        self.lives = 0
        self.ended = False  # for good
        self._random = self._generator("house")
        self._loop: SimulatedLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._config: Config
        self._secrets: Secrets

    def _generator(self, part: str) -> Any:
        return generator(self.street.seed, f"{self.name}/{part}")

    def configure(self, config: Config, secrets: Secrets) -> None:
        """Lay out the configuration."""
        self._config, self._secrets = config, secrets

    @property
    def silent_after_s(self) -> float:
        """How long a node may be silent before that must be said."""
        return self._config.watch.silent_after_s

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._loop is not None

    # --- a life ---

    def begin(self) -> None:
        """One life of the process begins."""
        if self.street.over:
            self.ended = True
            return
        self.lives += 1
        self.street.tailbook.began(self)
        self._loop = SimulatedLoop(self.timeline, self._generator(f"loop {self.lives}"))
        random = self._generator(f"life {self.lives}")
        self.gateway = SimulatedGateway(self, self._config, self._secrets, random)
        self.ready = self._loop.ready
        self._task = self._loop.create_task(self.gateway.live())

    def turn(self) -> None:
        """Let the process do what is ready."""
        loop, task = self._loop, self._task
        assert loop is not None
        assert task is not None
        try:
            loop.turn()
        except Crash:
            self.kill("the process is gone")
            return
        if task.done():
            self._stopped(task.exception())

    def _stopped(self, error: BaseException | None) -> None:
        """The process has ended by itself: it was asked to, or cannot write any more."""
        if error is None:
            self._bury()
            return
        self.trace.note(f"{self.name} has ended: {error}")
        by_disk = isinstance(error, StoreError) and self.disk.broken
        self._bury()
        if not by_disk and not isinstance(error, StoreFull):
            self.judge.found("the process ended by itself", str(error))

    def kill(self, why: str, *, off_s: float | None = None, reboot: bool = False) -> None:
        """The process is gone from one moment to the next; off_s: for how long."""
        if not self.alive:
            return
        self.trace.note(f"{self.name} {why}")
        if reboot and off_s is None:
            off_s = self._random.uniform(*_OFF_S)
        self._bury(off_s, reboot=reboot)

    def _bury(self, off_s: float | None = None, *, reboot: bool = False) -> None:
        loop, self._loop = self._loop, None
        assert loop is not None
        self.gateway, self._task, self.ready = None, None, deque()
        self.adapters = []
        self.bus.client = None
        if self.client is not None:
            self.client.die()
            self.client = None
        loop.bury()
        self.disk.close()
        self.street.owners.died(self)
        self.street.tailbook.ended(self)
        self.judge.audit()
        if loop.deaths:
            self.judge.found("a task died", loop.deaths[0])
        down_s = self._random.uniform(*_DOWN_S) if off_s is None else off_s
        self.timeline.after(down_s, self._again, reboot)

    def _again(self, reboot: bool) -> None:
        if reboot:
            self.machine.boot()
        self.begin()

    def stop(self) -> None:
        """Ask the process to end."""
        if self.gateway is not None:
            self.trace.note(f"{self.name} asked to stop")
            self.gateway.ask_to_stop()

    def call_soon(self, call: Any, *arguments: Any) -> None:
        """Hand something to the process's event loop."""
        if self._loop is not None:
            self._loop.call_soon(call, *arguments)
