"""The fault plan of a run: what goes wrong, and when, all from one seed.

Rule: the plan is data; its canonical JSON has a hash, and the same seed gives the same hash.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass

from kerb_sim.world.luminaire import OPEN


@dataclass(frozen=True)
class Plan:
    """Times are seconds from the start of measuring."""

    seed: int
    duration_s: float
    advert_drop: float  # share of readings of which no advert is heard
    event_loss: float  # share of single advertising events that an adapter misses
    bus_noise: float
    power_cut_s: float
    power_cut_bin: int
    power_off_s: float
    bus_silence_s: float
    bus_silence_for_s: float
    dead_unit: int  # index of the lamp that does not answer its bus for a while
    dead_unit_s: float
    dead_unit_for_s: float
    broker_restart_s: float
    broker_down_for_s: float
    replays: int
    lamp_fault_s: float
    lamp_fault_for_s: float
    lamp_fault_lamp: int
    lamp_fault_kind: str  # of kerb_sim.world.luminaire

    @property
    def hash(self) -> str:
        """The plan's identity: 16 hex digits of SHA-256."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make(seed: int, bins: int, duration_s: float, lamps: int = 0) -> Plan:
    """Return the default plan for a street of `bins` bins and `lamps` lamps."""
    rng = random.Random(seed * 7919 + 17)
    dead = random.Random(seed * 104729 + 5)

    def at(low: float, high: float) -> float:
        return round(rng.uniform(low, high) * duration_s, 1)

    return Plan(
        seed=seed,
        duration_s=duration_s,
        advert_drop=0.15,
        event_loss=0.05,
        bus_noise=0.0002,
        power_cut_s=at(0.25, 0.45),
        power_cut_bin=rng.randrange(max(1, bins)),
        power_off_s=2.0,
        bus_silence_s=at(0.5, 0.6),
        bus_silence_for_s=min(4.0, duration_s * 0.08),
        dead_unit=dead.randrange(64),
        dead_unit_s=round(dead.uniform(0.15, 0.3) * duration_s, 1),
        dead_unit_for_s=min(8.0, duration_s * 0.15),
        broker_restart_s=at(0.65, 0.75),
        broker_down_for_s=min(3.0, duration_s * 0.05),
        replays=3,
        lamp_fault_s=at(0.2, 0.3),
        lamp_fault_for_s=round(duration_s * 0.35, 1),
        lamp_fault_lamp=rng.randrange(max(1, lamps)),
        lamp_fault_kind=OPEN,
    )


def drops(seed: int, share: float, node: str, counter: int) -> bool:
    """Tell whether no advert of this reading is to be heard, the same for every repetition."""
    digest = hashlib.sha256(f"{seed}/{node}/{counter}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
