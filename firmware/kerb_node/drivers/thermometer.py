"""Air temperature from an NTC thermistor in a divider to 3.3 V.

Rule: an open or shorted sensor gives None, never a temperature.

Source: the B-parameter equation 1/T = 1/T0 + ln(R/R0)/B for a 10 kOhm, B 3950 part at 25 C.
"""

from math import log

_SUPPLY_UV = 3300000
_SERIES_OHM = 10000
_NOMINAL_OHM = 10000
_B_K = 3950
_T0_K = 298.15


def temperature_dc(reading_uv):
    """Return tenths of a degree Celsius for the voltage across the thermistor (to ground)."""
    if not 50000 < reading_uv < _SUPPLY_UV - 50000:
        return None  # shorted or broken off
    ohm = _SERIES_OHM * reading_uv / (_SUPPLY_UV - reading_uv)
    kelvin = 1 / (1 / _T0_K + log(ohm / _NOMINAL_OHM) / _B_K)
    tenths = int((kelvin - 273.15) * 10 + (0.5 if kelvin > 273.15 else -0.5))
    return tenths if -600 <= tenths <= 1250 else None
