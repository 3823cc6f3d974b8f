"""The world's own record: which bursts each bin measured, how lamps burnt, what was true then.

Rule: this is the truth; nothing in it was computed by the code under test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from kerb_wire.words import FAULT_DAY_BURNER, FAULT_LAMP_FAILURE

from kerb_check import jsonl
from kerb_check.model import SourceError

# What the world says is wrong with a luminaire, and the bit that a lamp must report it by.
LAMP_FAULTS = {"open load": FAULT_LAMP_FAILURE, "stuck on": FAULT_DAY_BURNER}


@dataclass
class Burst:
    """One wake's pings: when they ended, what echoed, and the truth beside them."""

    node: str
    t_s: float
    wake_no: int
    session: int  # index of the power session: rises at each boot that is no deep-sleep wake
    session_t_s: float
    echoes_us: list[int]
    distance_true_mm: float
    fill_true_pct: float
    interrupted: bool = False  # the power went before this wake ended
    counter: int | None = None  # what the same wake advertised first after it


@dataclass
class Lamp:
    """A change of a lamp's light as the world saw it."""

    t_s: float
    light_pct: float


@dataclass
class LampFault:
    """Something wrong with a luminaire, from t_s until end_s (infinite: never mended)."""

    t_s: float
    what: str
    end_s: float = math.inf


@dataclass
class World:
    """Everything that world.jsonl says, in order of time."""

    roles: dict[str, str] = field(default_factory=dict)
    geometries: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    bursts: dict[str, list[Burst]] = field(default_factory=dict)
    lamps: dict[str, list[Lamp]] = field(default_factory=dict)
    lamp_faults: dict[str, list[LampFault]] = field(default_factory=dict)
    boots: dict[str, list[float]] = field(default_factory=dict)
    adverts: dict[tuple[str, int], float] = field(default_factory=dict)
    advert_sessions: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    injected: list[dict[str, Any]] = field(default_factory=list)
    power_cuts: dict[str, list[float]] = field(default_factory=dict)
    stopped_t_s: float | None = None
    gateways_gone: set[str] = field(default_factory=set)  # killed, and never started again

    def sessions_of(self, node: str) -> dict[int, set[int]]:
        """Return counter -> the power sessions in which the node advertised it."""
        return {seq: found for (name, seq), found in self.advert_sessions.items() if name == node}


def read(path: Path) -> World:
    """Return the World of a run's world.jsonl; SourceError if it is damaged or cut short."""
    world = World()
    session: dict[str, tuple[int, float]] = {}
    pings: dict[str, list[dict[str, Any]]] = {}
    counters: dict[str, int] = {}
    for row in jsonl.read(path, closing="measuring_stopped"):
        kind, node = row["type"], str(row.get("node", ""))
        if kind == "node":
            world.roles[node] = row["role"]
            world.geometries[node] = row["geometry"]
            world.bursts[node] = []
            world.lamps[node] = []
            world.lamp_faults[node] = []
            world.boots[node] = []
            world.power_cuts[node] = []
        elif kind == "boot":
            _close_burst(world, pings.pop(node, []), session, counters, interrupted=True)
            world.boots[node].append(row["t_s"])
            if row["cause"] != "deep_sleep":
                before = session.get(node, (-1, 0.0))[0]
                session[node] = (before + 1, row["t_s"])
        elif kind == "ping":
            held = pings.setdefault(node, [])
            if held and held[-1]["wake_no"] != row["wake_no"]:
                _close_burst(world, pings.pop(node), session, counters)
            pings.setdefault(node, []).append(row)
        elif kind == "sleep":
            _close_burst(world, pings.pop(node, []), session, counters)
        elif kind == "power_cut":
            _close_burst(world, pings.pop(node, []), session, counters, interrupted=True)
            world.power_cuts[node].append(row["t_s"])
        elif kind == "lamp":
            world.lamps[node].append(Lamp(row["t_s"], row["light_pct"]))
        elif kind == "lamp_fault":
            _lamp_fault(world.lamp_faults[node], row)
        elif kind == "advert":
            if pings.get(node):
                counters.setdefault(node, row["counter"])
            advert = (node, row["counter"])
            world.adverts.setdefault(advert, row["t_s"])
            world.advert_sessions.setdefault(advert, set()).add(session.get(node, (0, 0.0))[0])
        elif kind in ("replay", "forge"):
            world.injected.append(row)
        elif kind == "gateway_gone":
            world.gateways_gone.add(row["gateway"])
        elif kind == "measuring_stopped":
            world.stopped_t_s = row["t_s"]
    for held in pings.values():
        # A wake that the end of the run cut off may not have stored its reading.
        _close_burst(world, held, session, counters, interrupted=True)
    return world


def _lamp_fault(faults: list[LampFault], row: dict[str, Any]) -> None:
    """Begin the fault that the row names; without a name, the lamp has been mended."""
    if faults and faults[-1].end_s == math.inf:
        faults[-1].end_s = row["t_s"]
    if row["what"] in LAMP_FAULTS:
        faults.append(LampFault(row["t_s"], row["what"]))
    elif row["what"]:
        raise SourceError(f"world.jsonl: a lamp fault {row['what']!r} that nobody knows")


def _close_burst(
    world: World,
    pings: list[dict[str, Any]],
    session: dict[str, tuple[int, float]],
    counters: dict[str, int],
    *,
    interrupted: bool = False,
) -> None:
    if not pings:
        return
    last = pings[-1]
    number, started = session.get(last["node"], (0, 0.0))
    world.bursts[last["node"]].append(
        Burst(
            node=last["node"],
            t_s=last["t_s"],
            wake_no=last["wake_no"],
            session=number,
            session_t_s=started,
            echoes_us=[ping["echo_us"] for ping in pings],
            distance_true_mm=median(ping["distance_true_mm"] for ping in pings),
            fill_true_pct=median(ping["fill_true_pct"] for ping in pings),
            interrupted=interrupted,
            counter=counters.pop(last["node"], None),
        )
    )
