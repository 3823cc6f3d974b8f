"""The lamp's output: PWM to a MOSFET or a 0-10 V converter.

Rule: the only place that writes the duty; it remembers the level so that nothing is written twice.
"""

from kerb_node.light.perceptual import duty_u16


class LampPwm:
    """A machine.PWM as a dimming level."""

    def __init__(self, pwm, level_pct):
        """level_pct: what `pwm` was made to burn at."""
        self._pwm = pwm
        self.level_pct = level_pct

    def set(self, level_pct):
        """Burn at level_pct (0 to 100)."""
        if level_pct != self.level_pct:
            self._pwm.duty_u16(duty_u16(level_pct))
            self.level_pct = level_pct
