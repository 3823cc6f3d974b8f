"""Ultrasonic ranging by trigger and echo pins: HC-SR04, JSN-SR04T and their kin.

Rule: one ping at a time, with a pause for the echoes of the last one to die away.

Source: HC-SR04 and JSN-SR04T-2.0 datasheets: a trigger pulse of at least 10 us, an echo pulse as
long as the flight there and back, about 38 ms long when nothing comes back, at least 60 ms from
one ping to the next.
"""

import time

import machine

_TRIGGER_US = 10
_TIMEOUT_US = 38000


class UltrasonicPulse:
    """A transducer on two pins; the 5 V echo needs a divider to 3.3 V (docs/hardware.md)."""

    def __init__(self, trigger, echo):
        """trigger, echo: machine.Pin, already set to output and input."""
        self._trigger = trigger
        self._echo = echo
        trigger.value(0)

    def ping(self):
        """Return the echo's flight time in microseconds; negative when none came back."""
        self._trigger.value(1)
        time.sleep_us(_TRIGGER_US)
        self._trigger.value(0)
        echo_us = machine.time_pulse_us(self._echo, 1, _TIMEOUT_US)
        return echo_us if echo_us < _TIMEOUT_US else -1

    def burst(self, pings, gap_ms):
        """Return `pings` flight times, gap_ms apart (60 ms or more keeps old echoes out)."""
        echoes_us = []
        for index in range(pings):
            if index:
                time.sleep_ms(gap_ms)
            echoes_us.append(self.ping())
        return echoes_us
