"""What a bin node must do, on whichever board the fixture has."""

from __future__ import annotations

import time
from typing import Any

import pytest
from bench import Bench


def first_wake(bench: Bench) -> None:
    bench.power_on()
    bench.wait_asleep()


def first_record(bench: Bench) -> dict[str, Any]:
    first_wake(bench)
    return bench.stored()[0]


def numbers(records: list[dict[str, Any]]) -> list[int]:
    """Return the records' sequence numbers; none may be there twice."""
    found = [record["seq"] for record in records]
    assert len(found) == len(set(found))
    return found


def test_boot_makes_a_record(bench: Bench) -> None:
    record = first_record(bench)
    assert (record["event"], record["seq"], record["boot_no"]) == ("boot", 1, 1)


def test_boot_makes_a_record_before_its_advert(bench: Bench) -> None:
    first_wake(bench)
    heard = set(bench.adverts())
    assert min(heard) == 1
    assert heard <= set(numbers(bench.stored()))


def test_adverts_are_bthome_and_fit(bench: Bench) -> None:
    first_wake(bench)
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
    first_wake(bench)
    for _ in range(2):
        bench.wait_awake()
        bench.wait_asleep()
    assert bench.boots()[:3] == ["power_on", "deep_sleep", "deep_sleep"]
    records = bench.stored()
    assert numbers(records)[:3] == [1, 2, 3]
    assert {record["boot_no"] for record in records} == {1}


def test_power_cut_resumes_behind_the_reserved_block(bench: Bench) -> None:
    first_wake(bench)
    bench.power_cut()
    bench.power_on()
    bench.wait_asleep()
    records = bench.stored()
    after = next(record for record in records if record["boot_no"] == 2)
    assert after["seq"] == 257
    assert after["epoch"] == records[0]["epoch"]


def test_reset_button_never_reuses_a_number(bench: Bench) -> None:
    first_wake(bench)
    bench.reset()
    bench.wait_asleep()
    records = bench.stored()
    assert numbers(records)
    assert {record["boot_no"] for record in records} == {1, 2}


def test_a_number_is_advertised_with_one_content(bench: Bench) -> None:
    first_wake(bench)
    bench.reset()
    bench.wait_asleep()
    assert len(bench.adverts()) >= 2
    assert all(len(contents) == 1 for contents in bench.adverts().values())


def test_reset_in_the_middle_of_a_wake(bench: Bench) -> None:
    """RTC memory is older than the number that this wake has used: it must not be believed."""
    first_wake(bench)
    bench.wait_awake()
    deadline = time.monotonic() + 10
    while 2 not in bench.adverts() and time.monotonic() < deadline:
        time.sleep(0.005)
    bench.reset()
    bench.wait_asleep()
    assert all(len(contents) == 1 for contents in bench.adverts().values())
    records = bench.stored()
    assert len(numbers(records)) >= 3
    assert {record["boot_no"] for record in records} == {1, 2}


def test_tilt_wakes_at_once(bench: Bench) -> None:
    first_wake(bench)
    bench.press_tilt()
    bench.wait_awake()
    bench.wait_asleep()
    assert "tilt" in [record["event"] for record in bench.stored()[:3]]


def test_a_frozen_application_is_restarted_by_the_watchdog(bench: Bench) -> None:
    bench.power_on()
    deadline = time.monotonic() + 10
    while not bench.adverts() and time.monotonic() < deadline:
        time.sleep(0.005)  # the first advert: the watchdog has been started by then
    bench.freeze()
    bench.wait_asleep()
    assert "watchdog" in bench.boots()
    assert numbers(bench.stored())
