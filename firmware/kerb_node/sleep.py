"""Deep sleep: what is kept in RTC memory, which pins may end it, and the clock that runs on.

Rule: the last statement of a bin's wake; nothing after deepsleep() runs.
"""

import time

import esp32
import machine


def clock_ms():
    """Return a clock in milliseconds that runs through deep sleep; only differences mean anything.

    The port keeps it on the RTC timer; nobody sets it on a node.
    """
    return time.time_ns() // 1000000


def recall():
    """Return the bytes kept in RTC memory (b"" after a loss of power)."""
    return machine.RTC().memory()


def woken_by_pin():
    """Tell whether a pin ended the deep sleep, even if it has gone back since."""
    return machine.wake_reason() == machine.EXT0_WAKE


def retain(block):
    """Keep `block` (at most 2,048 bytes) in RTC memory."""
    machine.RTC().memory(block)


def until(duration_ms, wake_pins):
    """Sleep for duration_ms or until one of wake_pins (RTC pins) goes low; the chip restarts.

    The original ESP32 offers ext1 only as "all low" or "any high", so the one pin that matters
    most is armed on ext0 (low), the others are looked at on each wake.
    """
    if wake_pins:
        esp32.wake_on_ext0(pin=wake_pins[0], level=esp32.WAKEUP_ALL_LOW)
    machine.deepsleep(duration_ms)
