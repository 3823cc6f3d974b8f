"""What one board can feel of the world: a bin's echoes and voltages, a lamp's output.

Rule: implements the board's BoardWorld; every answer that is a measurement goes into the record.
"""

from __future__ import annotations

import math
import random

from kerb_sim.world import acoustics
from kerb_sim.world.container import Container
from kerb_sim.world.luminaire import Luminaire
from kerb_sim.world.record import Record

_SERVICE_PIN = 32
_THERMISTOR_PIN = 34
_SUPPLY_UV = 3_300_000


def thermistor_uv(air_c: float) -> int:
    """Return the voltage of a 10 kOhm B 3950 thermistor over 4.7 kOhm to ground."""
    ohm = 10000 * math.exp(3950 * (1 / (air_c + 273.15) - 1 / 298.15))
    return round(_SUPPLY_UV * 4700 / (4700 + ohm))


class Surroundings:
    """Common to bins and lamps."""

    def __init__(self, node: str, role: str, record: Record) -> None:
        self.node = node
        self.role = role
        self.service = False
        self._record = record
        self._told: set[int] = set()

    def pin_level(self, pin: int) -> int:
        return 0 if pin == _SERVICE_PIN and self.service else 1

    def booted(self, cause: str) -> None:
        self._record.write("boot", node=self.node, cause=cause)

    def slept(self, duration_ms: int) -> None:
        self._record.write("sleep", node=self.node, ms=duration_ms)

    def power_lost(self) -> None:
        self._record.write("power_cut", node=self.node)

    def advertised(self, data: bytes) -> None:
        counter = int.from_bytes(data[-8:-4], "little")
        if counter not in self._told:
            self._told.add(counter)
            self._record.write("advert", node=self.node, counter=counter)

    def echo_us(self, pin: int) -> int:
        return -2

    def adc_uv(self, pin: int) -> int:
        return 0

    def pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        """Nothing is connected."""


class BinSurroundings(Surroundings):
    """A container under a transducer."""

    def __init__(
        self, node: str, record: Record, container: Container, air_c: float, rng: random.Random
    ) -> None:
        super().__init__(node, "bin", record)
        self.container = container
        self.air_c = air_c
        self._rng = rng
        self._wake_no = 0
        self._ping_no = 0
        shape = container.shape
        record.write(
            "node",
            node=node,
            role="bin",
            geometry={
                "shape": shape.kind,
                "empty_distance_mm": shape.empty_distance_mm,
                "full_distance_mm": shape.full_distance_mm,
            },
        )

    def booted(self, cause: str) -> None:
        super().booted(cause)
        self._wake_no += 1
        self._ping_no = 0

    def echo_us(self, pin: int) -> int:
        mean_mm, nearest_mm = self.container.footprint_mm(acoustics.HALF_ANGLE)
        flight_us = acoustics.echo_us(nearest_mm, self.air_c, self._rng)
        self._ping_no += 1
        self._record.write(
            "ping",
            node=self.node,
            wake_no=self._wake_no,
            ping_no=self._ping_no,
            echo_us=flight_us,
            distance_true_mm=round(mean_mm, 1),
            fill_true_pct=round(self.container.fill * 100, 2),
            air_c=round(self.air_c, 2),
        )
        return flight_us

    def adc_uv(self, pin: int) -> int:
        if pin == _THERMISTOR_PIN:
            # The sensor sits in the lid: a few tenths off the air's mean.
            return thermistor_uv(self.air_c + self._rng.gauss(0, 0.2))
        return 1_650_000


class LampSurroundings(Surroundings):
    """A luminaire behind a PWM output."""

    def __init__(self, node: str, record: Record, luminaire: Luminaire) -> None:
        super().__init__(node, "lamp", record)
        self.luminaire = luminaire
        record.write("node", node=node, role="lamp", geometry=None)

    def pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        self.luminaire.light_pct = light_pct = round(duty_u16 / 655.35, 2)
        self._record.write("lamp", node=self.node, duty_u16=duty_u16, light_pct=light_pct)

    def adc_uv(self, pin: int) -> int:
        return self.luminaire.adc_uv(pin)

    def fail(self, what: str) -> None:
        """Break the luminaire (OPEN, STUCK), or mend it ("")."""
        self.luminaire.fault = what
        self._record.write("lamp_fault", node=self.node, what=what)
