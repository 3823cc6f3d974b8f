"""SIGKILLs at random moments on whole streets: gateway, broker, bluetoothd stand-in, nodes.

The street is the demo's: real MicroPython boards, real gateway, mosquitto, bleak on the emulated
org.bluez, a bus of ptys, commands, replayed adverts. The bluetoothd stand-in lives in the street's
own process: its death is its bus connection cut without a word, which is all that a client sees.
Gateway and broker are also frozen (SIGSTOP) before some of their deaths.

Rule: victim and moment come from the seed, and nothing is waited for: a kill may meet a recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from kerb_sim.street import Member

from kerb_tools.faults.outcome import Outcome
from kerb_tools.faults.recovery import Fault, measure
from kerb_tools.faults.rig import Needs, Place, Rig, now_s, run

_SHORTEST_S, _LONGEST_S = 0.1, 1.6
_OFF_S = 0.6
_FROZEN = 0.2  # share of gateway's and broker's deaths that a freeze precedes
_FROZEN_S = 1.5
_RUNNING_S = 4.0
_AWAKE_S = 0.5
_A_KILL_S = 1.2
_VICTIMS = {"gateway": 40, "broker": 18, "bluetoothd": 14, "bin": 18, "lamp": 10}


class _Killer:
    """Kills on one street and notes when."""

    def __init__(self, seed: int, kills: int, outcome: Outcome) -> None:
        self._rng = random.Random(f"kills/{seed}")
        self._left = kills
        self._outcome = outcome
        self.faults: list[Fault] = []

    async def run(self, rig: Rig) -> None:
        """Kill as often as was asked for."""
        ways: dict[str, Callable[[Rig], Awaitable[frozenset[str] | None]]] = {
            "gateway": self._gateway,
            "broker": self._broker,
            "bluetoothd": self._bluetoothd,
            "bin": self._bin,
            "lamp": self._lamp,
        }
        while self._left > 0:
            await asyncio.sleep(self._rng.uniform(_SHORTEST_S, _LONGEST_S))
            (victim,) = self._rng.choices(list(_VICTIMS), list(_VICTIMS.values()))
            before = self._left
            nodes = await ways[victim](rig)
            if self._left < before:
                self.faults.append(Fault(f"{victim} killed", self._at_s, now_s(), nodes))
                self._outcome.add(f"{victim} killed")

    def _killed(self) -> None:
        self._at_s = now_s()
        self._left -= 1
        self._outcome.count += 1

    async def _off(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, _OFF_S))

    async def _freeze(self, stop: Callable[[], None], name: str) -> None:
        if self._rng.random() < _FROZEN:
            stop()
            self._outcome.add(f"{name} frozen before")
            await asyncio.sleep(self._rng.uniform(0.2, _FROZEN_S))

    async def _gateway(self, rig: Rig) -> None:
        await self._freeze(lambda: rig.gateway.send_signal(signal.SIGSTOP), "gateway")
        if rig.gateway.returncode is not None:
            self._outcome.fault(f"the gateway had ended by itself: {rig.gateway.returncode}")
        else:
            await rig.kill_gateway()
        self._killed()
        await self._off()
        await rig.start_gateway()

    async def _broker(self, rig: Rig) -> None:
        broker = rig.street.broker
        await self._freeze(broker.freeze, "broker")
        await broker.stop(kill=True)
        self._killed()
        await self._off()
        await broker.start()

    async def _bluetoothd(self, rig: Rig) -> frozenset[str]:
        await rig.street.bluez.stop()
        self._killed()
        await self._off()
        await rig.street.bluez.start()
        return frozenset(one.name for one in rig.street.members if one.role == "bin")

    async def _bin(self, rig: Rig) -> frozenset[str]:
        """Kill a bin's process while it is awake; asleep it has none."""
        member = self._one(rig, "bin")
        with contextlib.suppress(TimeoutError):
            await member.board.wait_for("running", timeout_s=_RUNNING_S)
        await asyncio.sleep(self._rng.uniform(0, _AWAKE_S))
        return await self._node(member)

    async def _lamp(self, rig: Rig) -> frozenset[str]:
        return await self._node(self._one(rig, "lamp"))

    def _one(self, rig: Rig, role: str) -> Member:
        return self._rng.choice([one for one in rig.street.members if one.role == role])

    async def _node(self, member: Member) -> frozenset[str]:
        if member.board.state == "running":
            await member.board.power_cut()
            self._killed()
            await self._off()
            await member.board.power_on()
        return frozenset({member.name})


def job(seed: int, budget: int, work: Path) -> Outcome:
    """Kill `budget` times on one street."""
    needs = Needs.found()
    outcome = Outcome()
    killer = _Killer(seed, budget, outcome)

    def rig_of(run_dir: Path) -> Rig:
        place = Place(run_dir, seed, bins=4, lamps=2, duration_s=budget * _A_KILL_S)
        return Rig(place.street(needs), place.duration_s, seed, killer.run)

    kept = run(
        rig_of, work, "kills", outcome, lambda folder: measure(folder, killer.faults, outcome)
    )
    if kept is not None:
        outcome.fault(f"kept in {kept.name}")
    return outcome
