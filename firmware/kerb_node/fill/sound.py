"""The speed of sound, and what an echo's flight time means as a distance.

Rule: the air temperature is always taken into account: 2 m measured as if at 20 C are 11 cm off
at -10 C.

Source: the ideal-gas approximation c = 331.3 m/s * sqrt(1 + T / 273.15).
"""

from math import sqrt

NOMINAL_TEMPERATURE_DC = 150  # when the thermometer fails: a city's yearly mean, 15 C


def speed_m_s(temperature_dc):
    """Return the speed of sound in dry air; temperature_dc: tenths of a degree Celsius."""
    return 331.3 * sqrt(1 + temperature_dc / 2731.5)


def distance_mm(echo_us, temperature_dc):
    """Return the distance of an echo's flight time there and back, in whole millimetres."""
    return int(echo_us * speed_m_s(temperature_dc) / 2000 + 0.5)
