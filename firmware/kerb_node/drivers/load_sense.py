"""What a lamp draws and what feeds it: a shunt's amplifier and a divider on two ADC1 pins.

Rule: a voltage that no current explains gives None, never a current. The amplifier's zero is
lifted to 330 mV because the ESP32 cannot read below 150 mV: at 11 dB it answers 142 mV for
everything down to ground, and a broken wire would else look like a lamp without current.

Sources: TI SBOS793 (INA181A1: 20 V/V; "bias the REF pin to a value above 50 mV, buffered");
ESP-IDF, ADC calibration of the ESP32 (11 dB: 150 to 2,450 mV, offset 142 mV).
"""

_LOWEST_UV = 200000
_HIGHEST_UV = 2440000
_ZERO_UV = 330000
_UV_A_MA = 2000  # 0.1 Ohm, times 20
_DIVIDER = 13  # 120 kOhm over 10 kOhm


def load_ma(reading_uv):
    """Return the lamp's current in milliamperes (0 to 1,055); None: broken wire, or beyond."""
    if not _LOWEST_UV < reading_uv < _HIGHEST_UV:
        return None
    return max(0, reading_uv - _ZERO_UV) // _UV_A_MA


def supply_mv(reading_uv):
    """Return the supply's voltage in millivolts; below 2.6 V it cannot be told from none: 0."""
    return reading_uv * _DIVIDER // 1000 if reading_uv > _LOWEST_UV else 0
