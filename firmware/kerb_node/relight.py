"""Gives a lamp its light back, before anything else is loaded.

Rule: what a watchdog or a crash costs is the bootloader's time and these few imports; main.py
calls it first. On a bin, or after a loss of power, RTC memory holds no lamp's state and nothing
happens.
"""

from kerb_node import board, config, lampstate, sleep
from kerb_node.light.perceptual import duty_u16


def relight():
    """Burn at the level that RTC memory kept."""
    kept = lampstate.unpack(sleep.recall())
    if kept is not None:
        board.lamp_pwm(config.load(config.PATH).pwm_hz, duty_u16(kept.level_pct))
