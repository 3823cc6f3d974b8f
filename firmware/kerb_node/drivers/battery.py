"""Charge of a LiFePO4 cell from its voltage behind a 1:2 divider.

Rule: a rough figure for planning a visit, not a fuel gauge: the cell's curve is flat between
20 and 90 %.

Source: typical open-circuit discharge curve of a LiFePO4 cell at 25 C.
"""

_DIVIDER = 2
# (millivolts, per cent), falling
_CURVE = ((3400, 100), (3320, 90), (3300, 70), (3270, 40), (3200, 20), (3000, 10), (2500, 0))


def charge_pct(reading_uv):
    """Return 0 to 100 for the divided voltage in microvolts."""
    millivolts = reading_uv * _DIVIDER // 1000
    if millivolts >= _CURVE[0][0]:
        return 100
    for index in range(1, len(_CURVE)):
        low_mv, low_pct = _CURVE[index]
        high_mv, high_pct = _CURVE[index - 1]
        if millivolts >= low_mv:
            return low_pct + (high_pct - low_pct) * (millivolts - low_mv) // (high_mv - low_mv)
    return 0
