"""What the probe board runs: it plays the world for a board under test, pin by pin.

Rule: for a second ESP32 with MicroPython >= 1.24; nothing is stored on it, the bench sends this
program at its raw prompt and calls the functions below. docs/testing.md has the wiring.

The echo's width is a busy wait in a scheduled interrupt handler: the start may come a millisecond
late, which no test sees; the width is good to some 10 us (2 mm), more when the port is busy.
"""

import time

import machine

TRIGGER, ECHO, AIR, LOAD, TILT, SERVICE, LAMP, SUPPLY = 4, 5, 25, 26, 18, 19, 21, 22

_DAC_FULL_MV = 3300
_PERIOD_TIMEOUT_US = 20000  # the slowest PWM that a lamp may be set to has 10 ms
_PULSES = 9

_trigger = machine.Pin(TRIGGER, machine.Pin.IN, machine.Pin.PULL_DOWN)
_echo = machine.Pin(ECHO, machine.Pin.OUT, value=0)
_air = machine.DAC(machine.Pin(AIR))
_load = machine.DAC(machine.Pin(LOAD))
_tilt = machine.Pin(TILT, machine.Pin.OPEN_DRAIN, value=1)
_service = machine.Pin(SERVICE, machine.Pin.OPEN_DRAIN, value=1)
_lamp = machine.Pin(LAMP, machine.Pin.IN)
_supply = machine.Pin(SUPPLY, machine.Pin.OUT, value=1)
_flight_us = -1


def _answer(pin):
    if _flight_us > 0:
        _echo.on()
        time.sleep_us(_flight_us)
        _echo.off()


_trigger.irq(_answer, machine.Pin.IRQ_FALLING)


def surface(flight_us):
    """Answer each ping with a flight of that many microseconds; -1: with none."""
    global _flight_us
    _flight_us = flight_us


def air(millivolt):
    """Put that voltage to the thermistor's pin (steps of 13 mV)."""
    _air.write(millivolt * 255 // _DAC_FULL_MV)


def load(millivolt):
    """Put that voltage to the load sense's pin."""
    _load.write(millivolt * 255 // _DAC_FULL_MV)


def tilt(on):
    """Close or open the tilt switch."""
    _tilt.value(0 if on else 1)


def service(on):
    """Close or open the service switch."""
    _service.value(0 if on else 1)


def supply(on):
    """Switch the board's supply."""
    _supply.value(1 if on else 0)


def duty_pct():
    """Return the duty of the lamp's output: the median of some periods."""
    duties = []
    for _ in range(_PULSES):
        high_us = machine.time_pulse_us(_lamp, 1, _PERIOD_TIMEOUT_US)
        low_us = machine.time_pulse_us(_lamp, 0, _PERIOD_TIMEOUT_US)
        if high_us < 0 or low_us < 0:
            return 100.0 if _lamp.value() else 0.0
        duties.append(100 * high_us / (high_us + low_us))
    return sorted(duties)[_PULSES // 2]
