"""What a lamp node must do, on whichever board the fixture has."""

from __future__ import annotations

import time

from bench import Bench
from kerb_wire import registers
from kerb_wire.crc import crc16_modbus
from kerb_wire.words import FAULT_LAMP_FAILURE

UNIT = 1


def adu(pdu: bytes) -> bytes:
    body = bytes([UNIT]) + pdu
    return body + crc16_modbus(body).to_bytes(2, "little")


def control(**values: int) -> bytes:
    table = {name: 0 for name, _ in registers.CONTROL} | values
    words = registers.pack(registers.CONTROL, table)
    data = b"".join(word.to_bytes(2, "big") for word in words)
    head = b"\x10" + registers.CONTROL_START.to_bytes(2, "big")
    return adu(head + len(words).to_bytes(2, "big") + bytes([len(data)]) + data)


def status(bench: Bench) -> dict[str, int]:
    request = adu(b"\x04\x00\x00" + registers.STATUS_WORDS.to_bytes(2, "big"))
    answer = bench.exchange(request)
    assert crc16_modbus(answer[:-2]).to_bytes(2, "little") == answer[-2:]
    words = [int.from_bytes(answer[at : at + 2], "big") for at in range(3, len(answer) - 2, 2)]
    return dict(registers.unpack(registers.STATUS, words))


def start(bench: Bench) -> dict[str, int]:
    bench.power_on()
    for _ in range(20):
        if bench.exchange(adu(b"\x04\x00\x00\x00\x01")):
            return status(bench)
    raise AssertionError("the lamp does not answer")


def wait_for_faults(bench: Bench, wanted: int) -> None:
    """Wait until the register shows exactly these faults."""
    deadline = time.monotonic() + 15
    while status(bench)["faults"] != wanted:
        assert time.monotonic() < deadline, f"the faults are not {wanted}"
        time.sleep(0.1)


def test_fail_safe_level_after_power_on(lamp_bench: Bench) -> None:
    assert start(lamp_bench)["level_pct"] == 70


def test_the_output_follows_the_eye(lamp_bench: Bench) -> None:
    start(lamp_bench)
    assert 40 < lamp_bench.duty_pct() < 42  # CIE 1931: lightness 70 is 40.7 % of the light


def test_modbus_identity(lamp_bench: Bench) -> None:
    start(lamp_bench)
    answer = lamp_bench.exchange(adu(b"\x2b\x0e\x01\x00"))
    assert b"Kerbstone" in answer
    assert b"KS-LAMP" in answer


def test_a_command_sets_the_level_once(lamp_bench: Bench) -> None:
    start(lamp_bench)
    wanted = {"new_command_no": 5, "new_level_pct": 30, "new_hold_s": 60, "new_life_s": 10}
    for _ in range(2):
        assert lamp_bench.exchange(control(**wanted, echo=1))
    time.sleep(0.4)
    state = status(lamp_bench)
    assert (state["command_no"], state["command_outcome"], state["level_pct"]) == (5, 1, 30)
    commands = [r for r in lamp_bench.stored() if r["event"] == "command"]
    assert [(r["command_no"], r["outcome"]) for r in commands] == [(5, "applied")]


def test_an_override_ends_and_a_dead_command_is_not_applied(lamp_bench: Bench) -> None:
    start(lamp_bench)
    lamp_bench.exchange(
        control(new_command_no=1, new_level_pct=30, new_hold_s=1, new_life_s=10, echo=1)
    )
    lamp_bench.exchange(control(new_command_no=2, new_level_pct=99, new_hold_s=9, echo=2))
    assert status(lamp_bench)["command_outcome"] == 2
    time.sleep(2.0)
    assert status(lamp_bench)["target_level_pct"] == 70


def test_silence_is_followed_by_the_fail_safe(lamp_bench: Bench) -> None:
    start(lamp_bench)
    time.sleep(2.5)
    reasons = [r["reason"] for r in lamp_bench.stored()]
    assert "fail_safe" in reasons


def test_the_level_survives_a_watchdog_reset(lamp_bench: Bench) -> None:
    start(lamp_bench)
    lamp_bench.exchange(
        control(new_command_no=1, new_level_pct=30, new_hold_s=60, new_life_s=10, echo=1)
    )
    time.sleep(0.4)
    lamp_bench.freeze()
    for _ in range(100):
        if "watchdog" in lamp_bench.boots():
            break
        time.sleep(0.1)
    for _ in range(20):
        if lamp_bench.exchange(adu(b"\x04\x00\x00\x00\x01")):
            break
    assert status(lamp_bench)["level_pct"] == 30
    assert status(lamp_bench)["command_no"] == 1


def test_a_lamp_that_fails_says_so_once_and_its_mending_too(lamp_bench: Bench) -> None:
    assert start(lamp_bench)["faults"] == 0
    lamp_bench.fail_lamp()
    wait_for_faults(lamp_bench, FAULT_LAMP_FAILURE)
    time.sleep(1.2)  # longer than the records' gap: a fault that stays is said once
    lamp_bench.mend_lamp()
    wait_for_faults(lamp_bench, 0)
    time.sleep(1.2)
    said = [r["faults"] for r in lamp_bench.stored() if r["event"] == "fault"]
    assert said == [FAULT_LAMP_FAILURE, 0]
    assert status(lamp_bench)["level_pct"] == 70


def test_a_known_fault_is_not_said_anew_after_power_on(lamp_bench: Bench) -> None:
    start(lamp_bench)
    lamp_bench.fail_lamp()
    wait_for_faults(lamp_bench, FAULT_LAMP_FAILURE)
    time.sleep(0.5)
    lamp_bench.power_cut()
    assert start(lamp_bench)["faults"] == FAULT_LAMP_FAILURE
    time.sleep(3.5)
    records = lamp_bench.stored()
    assert [r["faults"] for r in records if r["event"] == "fault"] == [FAULT_LAMP_FAILURE]
    assert [r["faults"] for r in records if r["event"] == "boot"] == [0, FAULT_LAMP_FAILURE]
