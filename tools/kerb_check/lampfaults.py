"""Lamp faults: each that lasted where it could be seen was reported, and none was invented.

Rule: the world says what was wrong with a lamp and how it was lit, the delivered records say what
was reported; a record's place in time is its node's boot, as the world saw it, plus its uptime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from kerb_wire.words import FAULT_DAY_BURNER

from kerb_check.model import Finding, Identity, Reading
from kerb_check.world import LAMP_FAULTS, LampFault, World

# A steady light for so long shows a fault, or its end, to any rule; less may or may not.
_SEEN_S = 5.0
_LIT_PCT = 20.0  # below a fifth of the light no current sense is asked to tell
# uptime_s is cut to whole seconds and begins some hundred ms after the world's boot row.
_CLOCK_SLACK_S = 3.0


@dataclass
class Faults:
    """How many faults the world set, how many of them were reported, and what is wrong."""

    set: int = 0
    reported: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Said:
    """One delivered record of a lamp, placed in the world's time."""

    identity: Identity
    t_s: float
    faults: int


def check(world: World, unique: dict[Identity, Reading]) -> Faults:
    """Compare the world's lamp faults with the delivered records (first arrivals)."""
    result = Faults()
    for node, role in world.roles.items():
        if role == "lamp":
            records = (reading for reading in unique.values() if reading.identity.node == node)
            _check_lamp(world, node, _placed(world, node, records), result)
    return result


def _placed(world: World, node: str, readings: Iterable[Reading]) -> list[_Said]:
    boots = world.boots[node]
    said = []
    for reading in sorted(readings, key=lambda one: one.identity):
        boot_no = reading.content["boot_no"]
        if 1 <= boot_no <= len(boots):
            t_s = boots[boot_no - 1] + reading.content["uptime_s"]
            said.append(_Said(reading.identity, t_s, reading.content["faults"]))
    return said


def _check_lamp(world: World, node: str, said: list[_Said], result: Faults) -> None:
    faults = world.lamp_faults[node]
    for index, fault in enumerate(faults):
        later = faults[index + 1].t_s if index + 1 < len(faults) else math.inf
        bit = LAMP_FAULTS[fault.what]
        during = _between(said, fault.t_s, fault.end_s)
        reported = any(one.faults & bit for one in during)
        result.set += 1
        result.reported += reported
        if not reported and _visible(world, node, bit, fault.t_s, fault.end_s):
            _note(result, "lamp fault unreported", node, f"{fault.what} at {fault.t_s:.1f} s")
        ended = any(not one.faults & bit for one in _between(said, fault.end_s, later))
        if reported and not ended and _visible(world, node, bit, fault.end_s, later):
            _note(result, "lamp fault never ended", node, f"mended at {fault.end_s:.1f} s")
    for bit in LAMP_FAULTS.values():
        _check_claims(faults, bit, said, result)


def _check_claims(faults: list[LampFault], bit: int, said: list[_Said], result: Faults) -> None:
    """A fault may only appear while the world has it."""
    before = 0
    for one in said:
        appeared, before = one.faults & bit & ~before, one.faults
        if appeared and not any(
            fault.t_s - _CLOCK_SLACK_S <= one.t_s <= fault.end_s + _CLOCK_SLACK_S
            for fault in faults
            if LAMP_FAULTS[fault.what] == bit
        ):
            _note(result, "lamp fault invented", str(one.identity), f"bit {bit}, nothing wrong")


def _between(said: list[_Said], start_s: float, end_s: float) -> list[_Said]:
    return [one for one in said if start_s - _CLOCK_SLACK_S <= one.t_s <= end_s + _CLOCK_SLACK_S]


def _visible(world: World, node: str, bit: int, start_s: float, end_s: float) -> bool:
    """Tell whether the lamp's light stood still long enough, at a level that shows the bit."""
    edges = [(lamp.t_s, lamp.light_pct) for lamp in world.lamps[node]]
    # While the power is away there is no light that anyone commands.
    edges += [(t_s, math.nan) for t_s in world.power_cuts[node]]
    edges.sort()
    stop_s = math.inf if world.stopped_t_s is None else world.stopped_t_s
    ends = [t_s for t_s, _ in edges[1:]] + [stop_s]
    for (t_s, light_pct), next_s in zip(edges, ends, strict=True):
        shows = light_pct == 0 if bit == FAULT_DAY_BURNER else light_pct >= _LIT_PCT
        if shows and min(next_s, end_s, stop_s) - max(t_s, start_s) >= _SEEN_S:
            return True
    return False


def _note(result: Faults, kind: str, subject: str, detail: str) -> None:
    result.findings.append(Finding(kind, subject, detail))
