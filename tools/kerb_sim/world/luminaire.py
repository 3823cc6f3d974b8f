"""A luminaire as a load: what it draws at a duty, what it fails of, and what its sense pins show.

Rule: the physics is the world's own; it shares no number with the firmware but the wiring that
docs/hardware.md states.

Sources: TI SBOS793 (INA181A1: gain 20 V/V with an error of 1 %, offset 150 uV referred to the
input); ESP32 datasheet, ADC: noise and residual error of some millivolts after calibration.
"""

from __future__ import annotations

import random

LOAD_PIN, SUPPLY_PIN = 36, 39
NOMINAL_MA = 700
# What can be wrong: the LEDs are open and draw nothing, or the driver's switch is shorted.
OPEN, STUCK = "open load", "stuck on"
_SUPPLY_MV = 24_000
_STANDBY_MA = 6.0  # the driver's own need, at any level
_ZERO_MV, _MV_A_MA = 330.0, 2.0
_DIVIDER = 13.0
_NOISE_MV = 5.0
_MAINS_RIPPLE = 0.01


class Luminaire:
    """LEDs behind a driver; `light_pct` is the duty that the board commands."""

    def __init__(self, rng: random.Random, nominal_ma: float = NOMINAL_MA) -> None:
        self.light_pct = 0.0
        self.fault = ""
        self._nominal_ma = nominal_ma
        self._rng = rng
        self._gain = rng.uniform(0.99, 1.01)
        self._offset_mv = rng.uniform(-3.0, 3.0)

    @property
    def shines_pct(self) -> float:
        """The light that really comes out."""
        return {OPEN: 0.0, STUCK: 100.0}.get(self.fault, self.light_pct)

    def current_ma(self) -> float:
        """Return what the lamp draws at this moment."""
        ripple = self._rng.gauss(1.0, _MAINS_RIPPLE)
        return _STANDBY_MA + self._nominal_ma * self.shines_pct / 100 * ripple

    def adc_uv(self, pin: int) -> int:
        """Return the voltage at a sense pin in microvolts; 0 at any other pin."""
        if pin == LOAD_PIN:
            shown_mv = _ZERO_MV + self.current_ma() * _MV_A_MA * self._gain + self._offset_mv
        elif pin == SUPPLY_PIN:
            shown_mv = _SUPPLY_MV / _DIVIDER
        else:
            return 0
        return round(1000 * self._rng.gauss(shown_mv, _NOISE_MV))
