"""What a bin node must do, on whichever board the fixture has."""

from __future__ import annotations

import time

import pytest
from bench import Bench


def first_record(bench: Bench) -> dict[str, object]:
    bench.power_on()
    bench.wait_asleep()
    return bench.stored()[0]


def test_boot_makes_a_record_before_its_advert(bench: Bench) -> None:
    record = first_record(bench)
    assert record["event"] == "boot"
    assert record["seq"] == 1
    assert set(bench.adverts()) == {1}


def test_adverts_are_bthome_and_fit(bench: Bench) -> None:
    first_record(bench)
    (data,) = bench.adverts()[1]
    assert len(data) <= 31
    assert data[5:7] == b"\xd2\xfc"


@pytest.mark.parametrize("distance_mm", [300, 700, 1200, 2500, 4000])
def test_echo_to_distance(bench: Bench, distance_mm: int) -> None:
    bench.place_surface(distance_mm)
    record = first_record(bench)
    assert record["quality"] == "good"
    assert abs(int(str(record["distance_mm"])) - distance_mm) <= 8


@pytest.mark.parametrize("air_c", [-10.0, 35.0])
def test_temperature_is_taken_into_account(bench: Bench, air_c: float) -> None:
    bench.place_surface(2000, air_c)
    record = first_record(bench)
    assert abs(int(str(record["distance_mm"])) - 2000) <= 12


def test_frost_is_measured(bench: Bench) -> None:
    """At -28 C the thermistor's voltage lies under the floor of the ADC's widest range."""
    bench.place_surface(2000, -28.0)
    record = first_record(bench)
    assert abs(float(str(record["temperature_c"])) + 28) <= 1
    assert abs(int(str(record["distance_mm"])) - 2000) <= 20


def test_blind_zone_is_no_distance(bench: Bench) -> None:
    bench.place_surface(120)
    record = first_record(bench)
    assert record["quality"] == "blind_zone"
    assert record["distance_mm"] is None


def test_no_echo_is_not_empty(bench: Bench) -> None:
    bench.place_surface(None)
    record = first_record(bench)
    assert record["quality"] == "no_echo"
    assert record["distance_mm"] is None


def test_deep_sleep_keeps_the_count(bench: Bench) -> None:
    first_record(bench)
    for _ in range(2):
        bench.wait_awake()
        bench.wait_asleep()
    records = bench.stored()
    assert [record["seq"] for record in records[:3]] == [1, 2, 3]
    assert {record["boot_no"] for record in records} == {1}
    assert bench.boots()[:3] == ["power_on", "deep_sleep", "deep_sleep"]


def test_power_cut_resumes_behind_the_reserved_block(bench: Bench) -> None:
    first_record(bench)
    bench.power_cut()
    bench.power_on()
    bench.wait_asleep()
    records = bench.stored()
    assert records[-1]["seq"] == 257
    assert records[-1]["boot_no"] == 2
    assert records[-1]["epoch"] == records[0]["epoch"]


def test_reset_button_never_reuses_a_number(bench: Bench) -> None:
    first_record(bench)
    bench.reset()
    bench.wait_asleep()
    numbers = [record["seq"] for record in bench.stored()]
    assert len(numbers) == len(set(numbers)) == 2
    assert all(len(contents) == 1 for contents in bench.adverts().values())


def test_reset_in_the_middle_of_a_wake(bench: Bench) -> None:
    """RTC memory is older than the number that this wake has used: it must not be believed."""
    first_record(bench)
    bench.wait_awake()
    deadline = time.monotonic() + 10
    while 2 not in bench.adverts() and time.monotonic() < deadline:
        time.sleep(0.005)
    bench.reset()
    bench.wait_asleep()
    numbers = [record["seq"] for record in bench.stored()]
    assert len(numbers) == len(set(numbers)) == 3
    assert all(len(contents) == 1 for contents in bench.adverts().values())


def test_tilt_wakes_at_once(bench: Bench) -> None:
    first_record(bench)
    bench.press_tilt()
    bench.wait_awake()
    bench.wait_asleep()
    assert bench.stored()[1]["event"] == "tilt"


def test_a_frozen_application_is_restarted_by_the_watchdog(bench: Bench) -> None:
    bench.power_on()
    deadline = time.monotonic() + 10
    while not bench.adverts() and time.monotonic() < deadline:
        time.sleep(0.005)  # the first advert: the watchdog has been started by then
    bench.freeze()
    bench.wait_asleep()
    assert "watchdog" in bench.boots()
    numbers = [record["seq"] for record in bench.stored()]
    assert len(numbers) == len(set(numbers))
