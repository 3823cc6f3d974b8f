"""The probe of a rig as the bench sees it: a second ESP32 that plays the world.

Rule: one call, one line sent to the probe's raw prompt; its program is hil_tests/probe/probe.py.
"""

from __future__ import annotations

from pathlib import Path

from kerb_sim.world.acoustics import speed_m_s
from kerb_sim.world.surroundings import thermistor_uv
from mpremote.transport_serial import SerialTransport

_PROGRAM = Path(__file__).with_name("probe") / "probe.py"


class ProbePort:
    """An open port to a probe that runs its program."""

    def __init__(self, path: str, load_ma: int) -> None:
        self._transport = SerialTransport(path)
        self._transport.enter_raw_repl(soft_reset=True)
        self._transport.exec(_PROGRAM.read_bytes())
        self.place_surface(1000, 20.0)
        self.load(load_ma)

    def place_surface(self, distance_mm: float | None, air_c: float) -> None:
        """Play a surface at that distance through air of that temperature."""
        flight_us = -1
        if distance_mm is not None:
            flight_us = round(distance_mm * 2000 / speed_m_s(air_c))
        self._transport.exec(f"surface({flight_us})")
        self._transport.exec(f"air({thermistor_uv(air_c) // 1000})")

    def tilt(self, on: bool) -> None:
        """Close or open the tilt switch."""
        self._transport.exec(f"tilt({on})")

    def load(self, load_ma: int) -> None:
        """Play the lamp's current to the load sense."""
        self._transport.exec(f"load({(load_ma * 2) + 330})")

    def supply(self, on: bool) -> None:
        """Switch the board's supply."""
        self._transport.exec(f"supply({on})")

    def duty_pct(self) -> float:
        """Measure the lamp's output."""
        return float(self._transport.eval("duty_pct()"))

    def close(self) -> None:
        self._transport.exec("tilt(False)")
        self._transport.exit_raw_repl()
        self._transport.close()
