"""One demo run: the street, the gateway, the subscriber, the commander, and their end.

Rule: gateway and subscriber are processes of their own; measuring stops after the stated time,
and what is not delivered within the grace that follows counts as open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kerb_sim.street import SITE, Street

from kerb_tools.demo.commander import Commander
from kerb_tools.demo.peek import Peek
from kerb_tools.demo.platform import Platform

_GRACE_S = 15.0
_GRACE_LEAST_S = 2.0
_QUIET_S = 1.0
_READY_S = 15.0
_STOP_S = 10.0
_COMMANDS_WANTED = 40
_COMMAND_PAUSE_S = 0.25
_LAST_COMMAND_S = 6.0
_GROUP = "group"

Show = Callable[[str], None]


class Demo:
    """A street with its gateway; run() leaves everything in the run's directory."""

    def __init__(
        self,
        street: Street,
        duration_s: float,
        seed: int,
        show: Show,
        during: Callable[[Demo], Awaitable[None]] | None = None,
    ) -> None:
        """show: called twice a second with one line about what is happening.

        during: runs beside the measuring; tests kill and restart things in it.
        """
        self._during = during
        self.street = street
        self._peeks = {name: Peek(street.database_of(name)) for name in street.gateways}
        self._killed: set[str] = set()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self.peek = self._peeks[street.gateways[0]]
        self._duration_s = duration_s
        self._seed = seed
        self.show = show
        self._processes: list[asyncio.subprocess.Process] = []
        self.gateway_environment: dict[str, str] = {}  # beside this process's own
        self.grace_s = _GRACE_S

    async def run(self) -> None:
        """Prepare, run for the stated time, let it settle, end everything in order."""
        street = self.street
        await street.prepare()
        await street.start()
        try:
            await self._with_street(street)
        finally:
            for process in reversed(self._processes):
                await _end(process)
            await street.close()

    async def _with_street(self, street: Street) -> None:
        subscriber = self.subscriber = await self._start(
            "kerb_check.subscriber",
            "--port",
            str(street.broker.port),
            "--file",
            str(street.run_dir / "subscriber.jsonl"),
        )
        for name in street.gateways:
            await self.start_gateway(name)
        await self._until_ready()
        self.commander = commander = Commander(
            street.broker.port,
            f"kerb/v1/{SITE}/{street.gateways[0] if len(street.gateways) == 1 else _GROUP}",
            street.run_dir / "commands.jsonl",
            self._seed,
        )
        lamps = self._commanded()
        await street.power_up()
        street.faults()
        commanding = asyncio.ensure_future(self._command(commander, lamps))
        extra = asyncio.ensure_future(self._during(self)) if self._during else None
        await self._wait(self._duration_s, "measuring", commanding)
        if extra is not None:
            await extra
        commanding.cancel()
        commander.close()
        street.stop_measuring()
        await self._settle(self._all_heard)
        await self._again(commander)
        for name, process in self._running.items():
            if name in self._killed:
                street.record.write("gateway_gone", gateway=name)
            await _end(process)
        await asyncio.sleep(0.3)
        await _end(subscriber)

    def _commanded(self) -> list[str]:
        """Return the lamps that get commands: not the one that is to fail, if there are others.

        Its level stays where its fault can be seen: dimmed low, no sense could tell.
        """
        lamps = [member.name for member in self.street.members if member.role == "lamp"]
        failing = self.street.failing_lamp()
        return [n for n in lamps if failing is None or n != failing.name] or lamps

    @property
    def gateway(self) -> asyncio.subprocess.Process:
        """The process of the only gateway, or the first."""
        return self._running[self.street.gateways[0]]

    async def start_gateway(self, name: str | None = None) -> None:
        """Start a gateway's process, at first or again after a kill; None: the first."""
        name = name or self.street.gateways[0]
        self._killed.discard(name)
        self._running[name] = await self._start(
            "kerb_gateway",
            "run",
            "--config",
            str(self.street.config_of(name)),
            log=self.street.log_of(name),
        )

    async def kill_gateway(self, name: str | None = None) -> None:
        """SIGKILL a gateway, as a power cut of the Pi does; None: the first."""
        name = name or self.street.gateways[0]
        self._killed.add(name)
        process = self._running[name]
        process.kill()
        await process.wait()

    async def stop_gateway(self, name: str | None = None) -> None:
        """End a gateway's process as its operator does; None: the first."""
        await _end(self._running[name or self.street.gateways[0]])

    async def _start(
        self, module: str, *arguments: str, log: Path | None = None
    ) -> asyncio.subprocess.Process:
        environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": self.street.bus_address}
        if module == "kerb_gateway":
            environment |= self.gateway_environment
        path = log or self.street.run_dir / f"{module.split('.')[-1].replace('kerb_', '')}.log"
        with path.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    async def _until_ready(self) -> None:
        """Wait until the subscriber listens and the gateway runs; RuntimeError if they do not."""
        deadline = time.monotonic() + _READY_S
        marks = {self.street.run_dir / "subscriber.log": b"ready"}
        marks |= {self.street.log_of(name): b"uplink connected" for name in self.street.gateways}
        for path, mark in marks.items():
            while not path.exists() or mark not in path.read_bytes():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{path.name} says nothing of being ready: see {path}")
                await asyncio.sleep(0.05)

    async def _command(self, commander: Commander, lamps: list[str]) -> None:
        await asyncio.sleep(min(3.0, self._duration_s / 4))
        useful_s = max(1.0, self._duration_s - 3.0 - _LAST_COMMAND_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(useful_s):
                interval_s = max(_COMMAND_PAUSE_S, useful_s / _COMMANDS_WANTED)
                await commander.run(lamps, interval_s)

    async def _wait(self, duration_s: float, what: str, watched: asyncio.Future[None]) -> None:
        end = time.monotonic() + duration_s
        while (left_s := end - time.monotonic()) > 0:
            if watched.done() and watched.exception() is not None:
                raise watched.exception() or RuntimeError("the commander failed")
            self.show(f"{what}, {left_s:.0f} s left")
            await asyncio.sleep(min(0.5, left_s))

    async def _settle(self, complete: Callable[[], bool]) -> None:
        """Wait until nothing is open any more and all is complete, within the grace."""
        start = time.monotonic()
        quiet_since = 0.0
        while (passed_s := time.monotonic() - start) < self.grace_s:
            gaps, queued = self._waiting()
            self.show(f"settling: {gaps} gaps, {queued} messages waiting")
            busy = bool(gaps or queued) or not complete()
            quiet_since = 0.0 if busy else quiet_since or passed_s
            if quiet_since and passed_s > _GRACE_LEAST_S and passed_s - quiet_since > _QUIET_S:
                return
            await asyncio.sleep(0.5)

    async def _again(self, commander: Commander) -> None:
        """Let the platform ask for what the broker has lost, and see it come."""
        platform = Platform(self.street.broker.port, self.street.run_dir / "subscriber.jsonl")
        try:
            lacked = await platform.ask_again(self._running_names())
            unanswered = platform.send_again(commander)
            if lacked or unanswered:
                self.show(f"asked again: {lacked} messages, {unanswered} commands")
                await self._settle(lambda: not platform.unanswered(commander))
                await platform.ask_again(self._running_names())
        finally:
            platform.close()

    def _running_names(self) -> list[str]:
        return [name for name, one in self._running.items() if one.returncode is None]

    def _alive(self) -> list[Peek]:
        """What is to be seen of the gateways that run."""
        return [self._peeks[name] for name in self._running_names()]

    def _waiting(self) -> tuple[int, int]:
        """Return (open gap ranges, outbox rows) of all gateways that run."""
        each = [peek.waiting() for peek in self._alive()]
        return sum(gaps for gaps, _ in each), sum(queued for _, queued in each)

    def _all_heard(self) -> bool:
        """Whether a gateway has heard from every node since measuring stopped."""
        known = [peek.nodes() for peek in self._alive()]
        return all(
            any(
                member.name in nodes and nodes[member.name].newest.get("event") == "service"
                for nodes in known
            )
            for member in self.street.members
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process politely, and for good after a while."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def fresh_directory(run: Path | None) -> Path:
    """Return the run's directory: the given one, which must be new or empty, or run/<time>."""
    if run is None:
        run = Path("run") / time.strftime("%Y%m%d-%H%M%S")
    if run.exists() and any(run.iterdir()):
        raise FileExistsError(f"{run}: is not empty; name another with --run")
    run.mkdir(parents=True, exist_ok=True)
    return run.resolve()
