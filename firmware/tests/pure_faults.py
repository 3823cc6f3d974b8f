"""A lamp's faults as pure rules: when they come, when they go, and what never makes one.

Rule: plain asserts, run under both interpreters by run.py; time is a number here.
"""

from kerb_node import config
from kerb_node.drivers.load_sense import load_ma, supply_mv
from kerb_node.light import announce, faults
from kerb_node.light.perceptual import duty_u16
from kerb_wire.words import (
    FAULT_CYCLING,
    FAULT_DAY_BURNER,
    FAULT_LAMP_FAILURE,
    FAULT_SUPPLY_LOSS,
)

_STEP_MS = 200
_NOMINAL_MA = 700
_FED_MV = 24000


class Bench:
    """The rules, fed every 200 ms with what a luminaire would draw."""

    def __init__(self, bits=0, **changes):
        settings = config.Settings()
        settings.nominal_load_ma = _NOMINAL_MA
        settings.supply_min_mv = 18000
        for name in changes:
            setattr(settings, name, changes[name])
        self.now_ms = 0
        self.rules = faults.Faults(settings, bits, 0)

    def run(self, for_ms, level_pct, share_pct=100, supply_mv=_FED_MV, load="of the level"):
        """Let time pass at a level; share_pct of the current that it should draw flows."""
        duty = duty_u16(level_pct)
        if load == "of the level":
            load = 8 + _NOMINAL_MA * duty // 65535 * share_pct // 100
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            self.rules.judge(self.now_ms, duty, load, supply_mv)
            self.now_ms += _STEP_MS
        return self.rules.bits


def test_the_sense_reads_currents_and_knows_a_broken_wire():
    assert [load_ma(uv) for uv in (330000, 332000, 1730000, 2439000)] == [0, 1, 700, 1054]
    assert load_ma(320000) == 0  # a little below zero: the amplifier's offset
    assert load_ma(142000) is None and load_ma(0) is None  # nothing drives the pin
    assert load_ma(2450000) is None  # the ADC is at its end: shorted, or beyond
    assert supply_mv(1846154) == 24000 and supply_mv(142000) == 0


def test_a_healthy_lamp_has_no_fault_at_any_level():
    bench = Bench()
    for level_pct in range(0, 101, 5):
        assert bench.run(8000, level_pct) == 0, level_pct


def test_a_dark_lamp_fails_after_its_time_and_not_before():
    bench = Bench()
    bench.run(10000, 70)
    assert bench.run(4800, 70, share_pct=0) == 0
    assert bench.run(400, 70, share_pct=0) == FAULT_LAMP_FAILURE
    assert bench.run(4800, 70) == FAULT_LAMP_FAILURE
    assert bench.run(400, 70) == 0


def test_a_flicker_is_no_failure():
    bench = Bench()
    for _ in range(20):
        bench.run(4000, 70, share_pct=0)
        assert bench.run(200, 70) == 0


def test_between_failed_and_burning_nothing_changes():
    bench = Bench(failure_load_pct=50)
    assert bench.run(20000, 70, share_pct=52) == 0
    bench.run(20000, 70, share_pct=30)
    assert bench.run(20000, 70, share_pct=52) == FAULT_LAMP_FAILURE
    assert bench.run(20000, 70, share_pct=65) == 0


def test_what_cannot_be_seen_changes_nothing():
    bench = Bench()
    assert bench.run(60000, 30, share_pct=0) == 0  # too little current to tell none from some
    assert bench.run(60000, 70, load=None) == 0  # a broken sense wire
    bench.run(10000, 70, share_pct=0)
    assert bench.run(60000, 0, share_pct=0) == FAULT_LAMP_FAILURE  # by day nobody can tell
    assert bench.run(60000, 30) == FAULT_LAMP_FAILURE
    assert bench.run(60000, 70, load=None) == FAULT_LAMP_FAILURE
    assert bench.run(10000, 70) == 0


def test_a_new_level_has_time_to_settle():
    bench = Bench(fault_after_ms=1000)
    old_ma = _NOMINAL_MA * duty_u16(35) // 65535
    bench.run(3000, 35)
    assert bench.run(1000, 100, load=old_ma) == 0  # the filter has yet to follow
    assert bench.run(10000, 100) == 0


def test_a_driver_that_is_stuck_burns_by_day():
    bench = Bench()
    assert bench.run(20000, 0, load=8) == 0  # the driver's own need
    assert bench.run(20000, 0, load=50) == 0  # in the band between
    assert bench.run(8000, 0, load=690) == FAULT_DAY_BURNER
    assert bench.run(60000, 70, load=690) == FAULT_DAY_BURNER  # by night nobody can tell
    assert bench.run(20000, 0, load=50) == FAULT_DAY_BURNER
    assert bench.run(8000, 0, load=8) == 0


def test_a_lamp_that_comes_and_goes_cycles():
    bench = Bench(fault_after_ms=1000, cycles_most=3, cycling_window_ms=100000)
    for _ in range(3):
        assert bench.run(5000, 70, share_pct=0) == FAULT_LAMP_FAILURE
        assert bench.run(5000, 70) == 0
    assert bench.run(5000, 70, share_pct=0) == FAULT_LAMP_FAILURE | FAULT_CYCLING
    assert bench.run(90000, 70) == FAULT_CYCLING
    assert bench.run(20000, 70) == 0


def test_failures_far_apart_are_no_cycling():
    bench = Bench(fault_after_ms=1000, cycles_most=3, cycling_window_ms=60000)
    for _ in range(8):
        assert bench.run(5000, 70, share_pct=0) == FAULT_LAMP_FAILURE
        assert bench.run(25000, 70) == 0


def test_a_lamp_without_supply_has_not_failed():
    bench = Bench()
    bench.run(5000, 70)
    assert bench.run(20000, 70, share_pct=0, supply_mv=0) == FAULT_SUPPLY_LOSS
    assert bench.run(20000, 70, supply_mv=18500) == FAULT_SUPPLY_LOSS  # in the band
    assert bench.run(8000, 70) == 0


def test_a_board_without_senses_reports_nothing():
    bench = Bench(nominal_load_ma=0, supply_min_mv=0, bits=0x1F)
    assert not bench.rules.senses
    assert bench.run(20000, 70, load=None, supply_mv=0) == 0
    only_supply = Bench(nominal_load_ma=0, bits=FAULT_LAMP_FAILURE)
    assert only_supply.rules.senses and only_supply.run(20000, 70, share_pct=0) == 0


def test_known_faults_outlive_a_restart():
    known = FAULT_LAMP_FAILURE | FAULT_CYCLING
    bench = Bench(bits=known, cycling_window_ms=60000)
    assert bench.run(20000, 0, share_pct=0) == known
    assert bench.run(20000, 70) == FAULT_CYCLING
    assert bench.run(60000, 70) == 0


def test_flicker_is_held_back_and_said_later():
    one = announce.Announcer(60000, 0)
    assert not one.due(0, 0) and one.due(FAULT_LAMP_FAILURE, 1000)
    one.said(FAULT_LAMP_FAILURE, 1000)
    assert not one.due(0, 60999) and one.due(0, 61000)
    assert not one.due(FAULT_LAMP_FAILURE, 61000)  # it is as was said: nothing to add


def test_a_cycling_lamp_is_said_once():
    one = announce.Announcer(1000, 0)
    cycling = FAULT_CYCLING | FAULT_LAMP_FAILURE
    one.said(cycling, 0)
    for now_ms in range(0, 100000, 200):
        assert not one.due(FAULT_CYCLING if now_ms // 5000 % 2 else cycling, now_ms)
    assert one.due(FAULT_LAMP_FAILURE, 100000) and one.due(0, 100000)


def test_a_day_of_flicker_stays_within_its_wear():
    """The worst lamp there is: dark and bright in turn as fast as the rules can see it."""
    bench = Bench(fault_after_ms=1000)
    one = announce.Announcer(60000, 0)
    said = 0
    while bench.now_ms < 86400000 // 8:
        for share_pct in (0, 100):
            bits = bench.run(1400, 70, share_pct)
            if one.due(bits, bench.now_ms):
                one.said(bits, bench.now_ms)
                said += 1
    assert said <= 4, said  # failure, perhaps its end, cycling: and no more
