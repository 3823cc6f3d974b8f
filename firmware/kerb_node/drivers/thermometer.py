"""Air temperature from an NTC thermistor between 3.3 V and the pin, 4.7 kOhm from there to ground.

Rule: an open or shorted sensor gives None, never a temperature. With 4.7 kOhm the voltage stays
between 0.08 V and the ADC's 2.45 V from -30 to 70 C.

Source: the B-parameter equation 1/T = 1/T0 + ln(R/R0)/B for a 10 kOhm, B 3950 part at 25 C.
"""

from math import log

_SUPPLY_UV = 3300000
_SERIES_OHM = 4700
_NOMINAL_OHM = 10000
_B_K = 3950
_T0_K = 298.15


def temperature_dc(reading_uv):
    """Return tenths of a degree Celsius for the voltage across the series resistor."""
    if not 76000 < reading_uv < 2440000:
        return None  # broken off, or shorted
    ohm = _SERIES_OHM * (_SUPPLY_UV / reading_uv - 1)
    kelvin = 1 / (1 / _T0_K + log(ohm / _NOMINAL_OHM) / _B_K)
    tenths = int((kelvin - 273.15) * 10 + (0.5 if kelvin > 273.15 else -0.5))
    return tenths if -600 <= tenths <= 1250 else None
