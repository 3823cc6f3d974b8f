"""Which faults a lamp has, judged from its current and its supply. Pure: numbers in, bits out.

Rule: a fault comes when its sign has held for `after_ms`, and goes when the opposite has; what
cannot be seen now (too little light, a level just set, no sense wire) changes nothing. No fault
changes the level: a lamp that seems dark may still give light.

The words are those of the uCIFI outdoor lamp controller, LwM2M object 3416 version 2.0: 5 lamp
failure ("not producing light while it is expected to"), 10 day burner ("on while it should be
off"), 11 cycling failure ("switching on and off too often"); supply loss is 3411's.
Over-temperature is not judged: the original ESP32 has only esp32.raw_temperature(), an
uncalibrated number in no stated unit that differs by tens of degrees from chip to chip and sticks
at 128 on some, and ESP-IDF offers no driver for it; mcu_temperature() is for later chips.
"""

from kerb_wire.words import (
    FAULT_CYCLING,
    FAULT_DAY_BURNER,
    FAULT_LAMP_FAILURE,
    FAULT_SUPPLY_LOSS,
)

LEAST_MA = 40  # below it the sense cannot tell a current from its own and the ADC's error
_SETTLE_MS = 1000  # ten time constants of the filter behind the shunt, 10 kOhm and 10 uF
_BAND_PCT = 10  # of the expected current between "failed" and "burns"
_SUPPLY_BAND_PCT = 5
_FULL_DUTY = 65535


def _outside(value, low, high):
    """Return True below low, False from high on, and None in the band between them."""
    return True if value < low else False if value >= high else None


class Held:
    """A sign that has to hold for after_ms before it counts, and so has its opposite."""

    def __init__(self, after_ms, on):
        self._after_ms = after_ms
        self.on = on
        self._since_ms = None

    def update(self, sign, now_ms):
        """Take a sign (None: it cannot be told now); return True when that changed `on`."""
        if sign is None or sign == self.on:
            self._since_ms = None
            return False
        if self._since_ms is None:
            self._since_ms = now_ms
        if now_ms - self._since_ms < self._after_ms:
            return False
        self.on = sign
        self._since_ms = None
        return True


class Cycling:
    """A lamp that fails and burns again more than `most` times within a window."""

    def __init__(self, most, window_ms, on, now_ms):
        self._most = most
        self._window_ms = window_ms
        self.on = on
        self._failed_ms = [now_ms] if on else []  # the last `most` + 1 times

    def failed(self, now_ms):
        """The lamp has failed once more."""
        self._failed_ms = (self._failed_ms + [now_ms])[-self._most - 1 :]

    def update(self, now_ms):
        """Begin with one failure too many; end after a whole window without any."""
        times = self._failed_ms
        if len(times) > self._most and now_ms - times[0] <= self._window_ms:
            self.on = True
        elif self.on and now_ms - times[-1] > self._window_ms:
            self.on = False


class Faults:
    """One for a lamp; times are milliseconds of the node's uptime."""

    def __init__(self, settings, bits, now_ms):
        """bits: the faults that were known before a restart."""
        self._nominal_ma = settings.nominal_load_ma
        self._supply_min_mv = settings.supply_min_mv
        self._failure_pct = settings.failure_load_pct
        self._burner_ma = max(LEAST_MA, self._nominal_ma * settings.day_burner_pct // 100)
        bits &= self._judged()
        after_ms = settings.fault_after_ms
        self._failure = Held(after_ms, bool(bits & FAULT_LAMP_FAILURE))
        self._burner = Held(after_ms, bool(bits & FAULT_DAY_BURNER))
        self._supply = Held(after_ms, bool(bits & FAULT_SUPPLY_LOSS))
        self._cycling = Cycling(
            settings.cycles_most,
            settings.cycling_window_ms,
            bool(bits & FAULT_CYCLING),
            now_ms,
        )
        self._duty_u16 = None
        self._set_ms = now_ms

    def _judged(self):
        """Return the bits that this board's wiring lets it judge."""
        bits = FAULT_SUPPLY_LOSS if self._supply_min_mv else 0
        if self._nominal_ma:
            bits |= FAULT_LAMP_FAILURE | FAULT_DAY_BURNER | FAULT_CYCLING
        return bits

    @property
    def senses(self):
        """Whether there is anything to judge: a board without sense wires reports no fault."""
        return self._judged() != 0

    @property
    def bits(self):
        """The faults of this moment, as words.FAULT_ bits."""
        return (
            (FAULT_LAMP_FAILURE if self._failure.on else 0)
            | (FAULT_DAY_BURNER if self._burner.on else 0)
            | (FAULT_CYCLING if self._cycling.on else 0)
            | (FAULT_SUPPLY_LOSS if self._supply.on else 0)
        )

    def judge(self, now_ms, duty_u16, load_ma, supply_mv):
        """Take one measurement at a duty; load_ma None: the sense wire is broken."""
        if duty_u16 != self._duty_u16:
            self._duty_u16 = duty_u16
            self._set_ms = now_ms
        settled = now_ms - self._set_ms >= _SETTLE_MS
        starves = self._starves(supply_mv) if self._supply_min_mv else False
        self._supply.update(starves, now_ms)
        if self._nominal_ma:
            # Without its supply a lamp draws nothing, and that is not the lamp's fault.
            measured = load_ma if settled and starves is False else None
            if self._failure.update(self._fails(measured, duty_u16), now_ms) and self._failure.on:
                self._cycling.failed(now_ms)
            self._cycling.update(now_ms)
            self._burner.update(self._burns_by_day(measured, duty_u16), now_ms)

    def _fails(self, load_ma, duty_u16):
        expected_ma = self._nominal_ma * duty_u16 // _FULL_DUTY
        low_ma = expected_ma * self._failure_pct // 100
        if load_ma is None or low_ma < LEAST_MA:
            return None
        return _outside(load_ma, low_ma, low_ma + expected_ma * _BAND_PCT // 100)

    def _burns_by_day(self, load_ma, duty_u16):
        if load_ma is None or duty_u16:
            return None
        dark = _outside(load_ma, self._burner_ma // 2, self._burner_ma)
        return None if dark is None else not dark

    def _starves(self, supply_mv):
        least_mv = self._supply_min_mv
        return _outside(supply_mv, least_mv, least_mv + least_mv * _SUPPLY_BAND_PCT // 100)
