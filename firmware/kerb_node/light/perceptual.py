"""From a dimming level to a duty cycle that the eye sees as that level.

Source: CIE 15, lightness L*: up to 8 linear (Y = L* / 903.3), above the cube of (L* + 16) / 116.
"""

FULL_DUTY = 65535


def duty_u16(level_pct):
    """Return the PWM duty (0 to 65535) for a level of 0 to 100 per cent, rounded."""
    if level_pct <= 0:
        return 0
    if level_pct >= 100:
        return FULL_DUTY
    if level_pct <= 8:
        return (level_pct * FULL_DUTY * 10 + 4516) // 9033
    # In whole numbers: the port's floats have 24 bits.
    cube = (level_pct + 16) ** 3
    return (cube * FULL_DUTY + 116**3 // 2) // 116**3
