"""A whole street on which a job does its harm: real gateway, broker, boards; then the checker.

Rule: what a street leaves is judged by kerb_check alone; a run that was not as the contract says
is kept for whoever looks into it, every other one is thrown away.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kerb_check.verdict import Verdict, judge
from kerb_sim import plan
from kerb_sim.broker import find_mosquitto
from kerb_sim.street import Street

from kerb_tools.demo.run import Demo
from kerb_tools.faults import scratch
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.outcome import Outcome
from kerb_tools.interpreter import InterpreterError, find
from kerb_tools.system_parts import find_dbus_daemon

_NEVER_S = 1e6
_ADVERT_DROP = 0.15
_SCALE = 600.0  # a bin wakes every 1.5 s
_GRACE_S = 60.0
_TAKEN_S = 15.0
Edit = Callable[[str], str]


def now_s() -> float:
    """Return the clock that the subscriber writes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a street needs of the machine."""

    interpreter: Path
    dbus_daemon: Path

    @classmethod
    def found(cls) -> Needs:
        """Return them; FaultsError names what is missing."""
        try:
            interpreter = find().path
        except InterpreterError as error:
            raise FaultsError(str(error)) from error
        dbus_daemon = find_dbus_daemon()
        if dbus_daemon is None or find_mosquitto() is None:
            raise FaultsError("dbus-daemon or mosquitto is missing: make setup installs them")
        return cls(interpreter, dbus_daemon)


def _unseen(line: str) -> None:
    """Nobody watches a job's street."""


def _calm(seed: int, bins: int, duration_s: float) -> plan.Plan:
    """Return a plan in which adverts are lost and nothing else happens: the job does the rest."""
    return dataclasses.replace(
        plan.make(seed, bins, duration_s),
        advert_drop=_ADVERT_DROP,
        power_cut_s=_NEVER_S,
        bus_silence_s=_NEVER_S,
        dead_unit_s=_NEVER_S,
        broker_restart_s=_NEVER_S,
        lamp_fault_s=_NEVER_S,
        replays=3,
    )


class Rig(Demo):
    """A demo whose gateway may have another configuration and environment."""

    def __init__(
        self,
        street: Street,
        duration_s: float,
        seed: int,
        during: Callable[[Rig], Awaitable[None]],
        *,
        edit: Edit = lambda text: text,
        environment: dict[str, str] | None = None,
        before: Callable[[Rig], Awaitable[None]] | None = None,
    ) -> None:
        """edit: makes the gateway's configuration from the street's; environment: added to the
        gateway's; before: runs before the gateway is started for the first time.
        """
        super().__init__(street, duration_s, seed, _unseen, lambda _: self._all_of(during))
        self._edit = edit
        self._before = before
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self.gateway_environment = environment or {}
        # A unit that was silent is asked again after up to ten polls, and a street has much to
        # fetch when its faults are over.
        self.grace_s = _GRACE_S

    async def _all_of(self, during: Callable[[Rig], Awaitable[None]]) -> None:
        """Do the harm, then wait until the broker has what the commander gave to the network.

        What never reached a broker was never sent, and no gateway could answer it.
        """
        await during(self)
        deadline = now_s() + _TAKEN_S
        while self.commander.taken < self.commander.sent and now_s() < deadline:
            await asyncio.sleep(0.1)

    async def run(self) -> None:
        """Run the street, then end what came beside it."""
        try:
            await super().run()
        finally:
            for close in self.closing:
                await close()

    async def start_gateway(self, name: str | None = None) -> None:
        """Start the gateway's process with the edited configuration."""
        name = name or self.street.gateways[0]
        self._killed.discard(name)
        path = self.street.config_of(name)
        faulty = path.with_name("faulty.toml")
        if not faulty.exists():
            if self._before is not None:
                await self._before(self)
            faulty.write_text(self._edit(path.read_text()))
        self._running[name] = await self._start(
            "kerb_gateway", "run", "--config", str(faulty), log=self.street.log_of(name)
        )

    def gateway_says(self, text: str) -> int:
        """Return how often the gateway's log has a text."""
        return (self.street.run_dir / "gateway.log").read_text(errors="replace").count(text)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a job's street lies and how big it is."""

    run_dir: Path
    seed: int
    bins: int = 3
    lamps: int = 2
    duration_s: float = 20.0

    def street(self, needs: Needs, commit_s: float | None = None) -> Street:
        """Return the street, not yet prepared."""
        return Street(
            self.run_dir,
            bins=self.bins,
            lamps=self.lamps,
            seed=self.seed,
            duration_s=self.duration_s,
            interpreter=needs.interpreter,
            dbus_daemon=needs.dbus_daemon,
            scale=_SCALE,
            faults=_calm(self.seed, self.bins, self.duration_s),
            commit_s=commit_s,
        )


def run(
    rig_of: Callable[[Path], Rig],
    work: Path,
    name: str,
    outcome: Outcome,
    settled: Callable[[Path], None] = lambda run_dir: None,
    end: Callable[[], None] = lambda: None,
) -> Path | None:
    """Run a street in a fresh directory and add the checker's verdict to the outcome.

    settled: called when all has ended, before the checker looks; end: before the directory goes.
    """
    work.mkdir(parents=True, exist_ok=True)
    with scratch.folder(f"{name}-", work) as run_dir:
        try:
            asyncio.run(rig_of(run_dir).run())
            settled(run_dir)
            _judged(judge(run_dir), outcome)
        except RuntimeError as error:
            outcome.fault(f"the street did not get through: {error}")
        except Exception:  # a mistake in the campaign itself: what it was at must stay
            scratch.keep(run_dir)
            raise
        finally:
            end()
        if not outcome.broken:
            return None
        scratch.keep(run_dir)
        return run_dir


def _judged(verdict: Verdict, outcome: Outcome) -> None:
    """Add what the checker found; figures that add up are counted."""
    for text in verdict.broken:
        outcome.fault(f"a source is not whole: {text}")
    for finding in verdict.findings:
        outcome.fault(str(finding))
    figures = verdict.figures
    open_commands = figures["commands_sent"] - figures["commands_confirmed"]
    if open_commands:
        outcome.fault(f"{open_commands} commands without a result")
    for name in (
        "unaccounted",
        "readings_delivered_unique",
        "declared_lost",
        "commands_sent",
        "replays_injected",
        "replays_rejected",
    ):
        outcome.add(name.replace("_", " "), int(figures.get(name) or 0))
    again, deaths = figures["lost_by_broker_and_replayed"], outcome.counts.get("broker killed", 0)
    outcome.add("lost by broker and replayed", again)
    if again > deaths:
        # A broker's death may cost what it took in its last milliseconds; more is not its doing.
        outcome.fault(f"{again} readings came by replay only, after {deaths} deaths of the broker")
    outcome.add("replays accepted", figures["replays_injected"] - figures["replays_rejected"])
    outcome.add("streets")
