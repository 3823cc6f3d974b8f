"""When a reading was made: single bounds one by one, then thousands of lives with known truth."""

from __future__ import annotations

import random

from kerb_gateway.anchor import NONE, RANGE, Anchor, Boot, drifted_ms, offset_at, start_between
from kerb_gateway.clock import NTP_ERROR_MS, Moment, SystemClock, quality_of
from kerb_gateway.store.clock_anchors import ClockAnchors
from kerb_gateway.timeline import (
    AWAKE_DRIFT,
    CONTACTS_MOST,
    MAKING_MS,
    SLEEPING_DRIFT,
    Contact,
    Span,
    Stamp,
    Timeline,
)
from kerb_node.uptime import Uptime
from kerb_tools.bench import time as bench
from kerb_tools.bench.lives import NodeLife

LIVES = 2000
HOUR_S = 3600


def contact(uptime_s: int, at_ms: int, seq: int, boot_no: int = 1, boot_id: str = "a") -> Contact:
    return Contact(boot_id, boot_no, uptime_s, seq, at_ms - 100, at_ms + 100)


def bin_timeline(*contacts: Contact) -> Timeline:
    timeline = Timeline(SLEEPING_DRIFT, MAKING_MS)
    for one in contacts:
        assert timeline.meet(one)
    return timeline


# --- single bounds ---


def test_a_record_lies_between_the_contacts_around_it() -> None:
    """An hour before and an hour after: the drift is shared out, and bounded by both."""
    fast = 1.04  # this node's clock gains 4 %
    ten_s = round(2 * HOUR_S * fast)
    timeline = bin_timeline(contact(0, 0, 1), contact(ten_s, 2 * HOUR_S * 1000, 9))
    span = timeline.place(Stamp(5, 1, ten_s // 2), "a", 2 * HOUR_S * 1000 + 200)
    truth_ms = HOUR_S * 1000
    assert span.t_min_ms is not None
    assert span.t_ms is not None
    assert span.t_min_ms <= truth_ms <= span.t_max_ms
    assert abs(span.t_ms - truth_ms) < 1000
    alone = bin_timeline(contact(ten_s, 2 * HOUR_S * 1000, 9))
    wide = alone.place(Stamp(5, 1, ten_s // 2), "a", 2 * HOUR_S * 1000 + 200)
    assert wide.t_min_ms is not None
    assert wide.t_min_ms <= truth_ms <= wide.t_max_ms
    assert wide.t_max_ms - wide.t_min_ms > span.t_max_ms - span.t_min_ms


def test_a_boot_that_nobody_met_lies_between_its_neighbours() -> None:
    """It began after the last contact of the boot before, and was over before the next began."""
    timeline = bin_timeline(contact(500, 1_000_000, 3, boot_no=1))
    timeline.meet(contact(600, 9_000_000, 20, boot_no=3))
    span = timeline.place(Stamp(10, 2, 1200), "a", 9_000_500)
    assert span.t_min_ms == 1_000_000 - 100
    assert span.t_max_ms == 9_000_000 + 100
    # Before the first contact ever nothing is known: open, and no estimate is made up.
    first = bin_timeline(contact(600, 9_000_000, 20, boot_no=3))
    assert first.place(Stamp(10, 2, 1200), "a", 9_000_500) == Span("a", None, None, 9_000_100)


def test_a_boot_that_the_gateway_slept_through_is_told_on_the_older_axis() -> None:
    """A power cut took both: the record belongs to the boot of the gateway that met its node."""
    timeline = Timeline(AWAKE_DRIFT, 0)
    timeline.meet(contact(1000, 50_000_000, 7, boot_no=1, boot_id="a"))
    timeline.meet(contact(30, 40_000, 9, boot_no=2, boot_id="b"))
    span = timeline.place(Stamp(8, 1, 1060), "b", 41_000)
    assert span.boot_id == "a"
    assert span.t_min_ms is not None
    assert span.t_min_ms <= 50_060_000 <= span.t_max_ms
    assert span.t_max_ms - span.t_min_ms < 2500


def test_the_air_bounds_what_is_fetched_later() -> None:
    timeline = bin_timeline(contact(0, 0, 1))
    timeline.heard(5, "a", 3_000_000)
    timeline.meet(contact(9000, 9_000_000, 9))
    assert timeline.place(Stamp(4, 1, 3100), "a", 9_000_200).t_max_ms == 3_000_000


def test_an_advert_was_made_shortly_before_unless_it_may_be_a_repetition() -> None:
    timeline = bin_timeline(contact(0, 100_000, 1))
    fresh = timeline.advert(2, "a", 5_000_000, 15_000, repeated=False)
    assert (fresh.t_min_ms, fresh.t_max_ms) == (4_985_000, 5_000_000)
    assert timeline.advert(2, "a", 101_000, 15_000, repeated=False).t_min_ms == 99_900
    service = timeline.advert(2, "a", 5_000_000, 15_000, repeated=True)
    assert service.t_min_ms == 99_900
    unknown = Timeline(SLEEPING_DRIFT, MAKING_MS)
    assert unknown.advert(2, "a", 5_000_000, 15_000, repeated=True).t_min_ms is None


def test_a_boot_number_that_came_round_is_noticed() -> None:
    """The same number, another boot: its clock cannot have gone back."""
    timeline = bin_timeline(contact(9000, 9_000_000, 5))
    assert not timeline.meet(contact(60, 20_000_000, 900))
    assert timeline.contradictions == 1
    span = timeline.place(Stamp(899, 1, 30), "a", 20_000_200)
    assert span.t_min_ms is not None
    assert span.t_min_ms <= 19_970_000 <= span.t_max_ms


def test_a_record_against_its_clock_falls_back_to_order() -> None:
    timeline = bin_timeline(contact(0, 0, 1), contact(9000, 9_000_000, 9))
    span = timeline.place(Stamp(5, 1, 40_000), "a", 9_000_200)
    assert (span.t_min_ms, span.t_max_ms) == (-100, 9_000_100)
    assert timeline.contradictions == 1


def test_contacts_are_bounded_and_the_newest_stay() -> None:
    timeline = Timeline(AWAKE_DRIFT, 0)
    for minute in range(1000):
        assert timeline.meet(contact(60 * minute, 60_000 * minute, minute))
    kept = [one.uptime_s // 60 for one in timeline.contacts]
    assert len(kept) == CONTACTS_MOST
    assert kept[0] == 0
    assert kept[-4:] == [996, 997, 998, 999]
    assert kept == sorted(kept)


def test_uptime_survives_the_wrap_of_the_ticks() -> None:
    """The simulation counts ticks as the firmware does, over their period of 2^30 ms."""
    period = 1 << 30
    now = [period - 7000]

    def ticks_diff(after: int, before: int) -> int:
        return (after - before + period // 2) % period - period // 2

    real = Uptime(lambda: now[0] % period, ticks_diff)
    sim = NodeLife(random.Random(1), "lamp", 0.0, beyond=0.0)
    for passed_ms in (5000, 9000, 500_000_000, 1_000_000_000, 1_400_000_000):
        while now[0] - (period - 7000) < passed_ms:
            now[0] += min(400_000_000, passed_ms - (now[0] - (period - 7000)))
            real.now_ms()
        assert real.now_s() == passed_ms // 1000 == sim.uptime_s(float(passed_ms))


# --- wall time ---


def test_who_keeps_the_wall_clock_right() -> None:
    assert quality_of(0, 0) == "ntp"
    assert quality_of(0, 1000 * NTP_ERROR_MS) == "ntp"
    assert quality_of(0, 1000 * NTP_ERROR_MS + 1) == "none"  # NTP has not been heard for long
    assert quality_of(5, 0) == "none"  # TIME_ERROR: restored, set by hand, or never set
    assert quality_of(-1, 0) == "none"  # not allowed to ask
    moment = SystemClock().now()
    assert moment.quality in ("ntp", "none")


def test_an_anchor_is_less_sure_further_away() -> None:
    anchor = Anchor(5_000_000, 1_780_000_000_000, 2000)
    assert offset_at([anchor], 5_000_000) == (
        anchor.offset_ms - 2001,
        anchor.offset_ms + 2001,
    )
    day_ms = 86_400_000
    low, high = offset_at([anchor], 5_000_000 + day_ms)
    assert (high - low) // 2 == 2000 + drifted_ms(day_ms)
    later = Anchor(5_000_000 + day_ms, anchor.wall_ms + day_ms + 3000, 2000)
    assert offset_at([anchor, later], later.boottime_ms) == (
        later.offset_ms - 2001,
        later.offset_ms + 2001,
    )
    # A server that lied by years is outvoted by the newer word.
    liar = Anchor(1000, 900_000_000_000, 2000)
    assert offset_at([liar, later], 2000) == offset_at([later], 2000)


def test_a_boot_without_ntp_lies_between_those_with() -> None:
    first = Boot(1, "a", 3_600_000, [Anchor(0, 1_780_000_000_000, 0)])
    second = Boot(2, "b", 7_200_000)
    third = Boot(3, "c", 600_000)
    fourth = Boot(4, "d", 0, [Anchor(0, 1_780_020_000_000, 0)])
    boots = [first, second, third, fourth]
    start = start_between(boots, 1)
    assert start.ends is not None
    low, high = start.ends
    # After the hour of the first; early enough for its own two and the ten minutes that follow.
    assert 1_780_003_600_000 - 500 <= low <= 1_780_003_600_000
    assert 1_780_012_200_000 <= high <= 1_780_012_200_000 + 1000
    assert start_between(boots[1:], 0).low_ms is None
    assert start_between(boots[:2], 1).high_ms is None
    assert start_between([second], 0).ends is None


# --- lives ---


def test_a_moment_is_mapped_anew_when_an_anchor_comes() -> None:
    known = ClockAnchors()
    known.begin("a")
    known.look(Moment("a", 0, 1_000_000, "ntp"))
    known.begin("b")
    assert known.mapping("a", 500, "b") is None
    known.look(Moment("b", 0, 1_060_000, "ntp"))
    found = known.mapping("a", 500, "b")
    assert found is not None
    assert found[0] <= 500 - 60_000 <= found[1]
    assert known.mapping("a", 500, "b") == found


def test_a_boot_s_begin_is_known_better_when_an_anchor_comes_after_it() -> None:
    known = ClockAnchors()
    known.begin("a")
    known.begin("b")
    assert known.offset("a", 0)[1] == NONE
    known.look(Moment("b", 0, 1_060_000, "ntp"))
    offset, quality = known.offset("a", 0)
    assert quality == RANGE
    assert offset.high_ms is not None


def test_in_thousands_of_lives_the_truth_lies_in_every_range() -> None:
    judged = bench.judge(11, LIVES)
    assert not judged.missed, judged.missed[:3]
    counts = judged.counts
    print(bench.as_result(judged, 11, LIVES).as_json())
    assert counts["readings"] > 30 * LIVES
    for name in ("advert", "fetched", "polled", "open", "ntp", "anchored", "range", "none"):
        assert counts[name] > LIVES // 2, name


def test_the_judge_sees_clocks_beyond_their_bound() -> None:
    assert bench.judge(11, 60, beyond=2.0).counts["outside_range"] > 0
