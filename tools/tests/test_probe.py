"""The probe's program of hil_tests, on the host's MicroPython with pins that tell what they do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from streets import interpreter

_PROBE = Path(__file__).resolve().parents[2] / "hil_tests" / "probe"

_PINS = """
pulses = {1: 407, 0: 593}
told = []
class Pin:
    IN, OUT, OPEN_DRAIN, PULL_DOWN, IRQ_FALLING = 1, 3, 7, 1, 2
    def __init__(self, number, mode=None, pull=None, value=None):
        self.number, self.level = number, value
    def irq(self, handler, trigger):
        Pin.handler = handler
    def value(self, level=None):
        if level is None:
            return self.level
        self.level = level
        told.append((self.number, level))
    def on(self):
        self.value(1)
    def off(self):
        self.value(0)
class DAC:
    def __init__(self, pin):
        self.pin = pin
    def write(self, value):
        told.append((self.pin.number, value))
def time_pulse_us(pin, level, timeout_us):
    return pulses[level]
"""
_ASK = """
import machine, time
exec(open("probe.py").read())
def did(work):
    machine.told.clear()
    work()
    return list(machine.told)
assert did(lambda: machine.Pin.handler(_trigger)) == []  # no surface, no echo
surface(3000)
start = time.ticks_us()
assert did(lambda: machine.Pin.handler(_trigger)) == [(ECHO, 1), (ECHO, 0)]
assert time.ticks_diff(time.ticks_us(), start) >= 3000
assert did(lambda: air(902)) == [(AIR, 69)]
assert did(lambda: load(900)) == [(LOAD, 69)]
assert did(lambda: tilt(True)) == [(TILT, 0)]
assert did(lambda: supply(False)) == [(SUPPLY, 0)]
assert abs(duty_pct() - 40.7) < 0.01
machine.pulses[1] = -1
_lamp.level = 0
assert duty_pct() == 0.0
print("all well")
"""


def test_the_probe_plays_the_world(tmp_path: Path) -> None:
    (tmp_path / "machine.py").write_text(_PINS)
    (tmp_path / "probe.py").write_bytes((_PROBE / "probe.py").read_bytes())
    (tmp_path / "ask.py").write_text(_ASK)
    answer = subprocess.run(
        [str(interpreter()), "ask.py"],
        cwd=tmp_path,
        env=os.environ | {"MICROPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert answer.stdout.strip() == "all well", answer.stdout + answer.stderr
