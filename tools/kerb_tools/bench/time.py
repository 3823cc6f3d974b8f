"""kerb bench time: is every reading made within the range that the gateway states for it?

Thousands of nodes' lives from a seed, each beside a gateway of its own, with known truth: see
kerb_tools/bench/lives.py for what befalls them. The real timelines, anchors and message times are
asked; each reading is judged on the boottime axis, in wall time as it was known when it was sent,
in wall time as all anchors know it in the end, and as a consumer works it out from the anchors'
messages (docs/mqtt-topics.md). A range that the truth lies outside of is a miss; none is allowed.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
from kerb_gateway.model import Node, Reading, Stream
from kerb_gateway.store.clock_anchors import ClockAnchors
from kerb_gateway.store.contacts import Contacts
from kerb_gateway.timeline import (
    DOOR_S,
    STALE_MS,
    Contact,
    Span,
    Stamp,
    Timeline,
    advert_age_ms,
)
from kerb_gateway.uplink.payloads.times import time_of

from kerb_tools.bench.lives import DAY_MS, EPOCH_MS, HOUR_MS, Machine, Made, NodeLife, machines
from kerb_tools.bench.result import Bar, Result

LIVES = 3000
_DOOR_MS = round(1000 * DOOR_S)
_AGE_MS = advert_age_ms(_DOOR_MS)
_LOOK_MS = 600_000
_CITY_MS = 900_000  # the interval at which bins wake and lamps are read in a city


@dataclass
class Row:
    """A stored reading with the truth beside it."""

    made: Made
    machine: Machine  # of its arrival
    reading: Reading
    sent: dict[str, Any]
    how: str


@dataclass
class Judged:
    """What came of many lives."""

    counts: Counter[str] = field(default_factory=Counter)
    widths: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    missed: list[str] = field(default_factory=list)


def run(seed: int) -> Result:
    """Live and judge."""
    return as_result(judge(seed, LIVES), seed, LIVES)


def as_result(judged: Judged, seed: int, lives: int) -> Result:
    """Return the figures and the bars."""
    result = Result("time", seed)
    result.figures["lives"] = lives
    for name in ("readings", "advert", "fetched", "polled", "open", "ntp", "anchored", "range"):
        result.figures[f"{name}_number"] = judged.counts[name]
    result.figures["unresolved_number"] = judged.counts["none"]
    for name, widths in sorted(judged.widths.items()):
        result.figures[f"{name}_ms_p50"] = round(statistics.median(widths))
    for name, errors in sorted(judged.errors.items()):
        result.figures[f"{name}_ms_p95"] = round(statistics.quantiles(errors, n=20)[-1])
    for name in ("outside_range", "outside_sent_utc", "outside_utc", "outside_by_anchors"):
        result.figures[name] = judged.counts[name]
        result.bars.append(Bar(name, judged.counts[name], 0, at_least=False))
    return result


def judge(seed: int, lives: int, beyond: float = 1.0) -> Judged:
    """Live that many lives; beyond: times the stated bound, how far the nodes' clocks drift."""
    judged = Judged()
    for number in range(lives):
        Life(random.Random(seed * 1_000_003 + number), beyond).live().judge(judged, number)
    return judged


def _axis(time: dict[str, Any]) -> str:
    """Return the boot of the gateway on whose clock a message's t_ms lie."""
    return str(time.get("t_boot_id", time["boot_id"]))


class Life:
    """One node beside one gateway."""

    def __init__(self, rng: random.Random, beyond: float) -> None:
        self._rng = rng
        self._role = "lamp" if rng.random() < 0.3 else "bin"
        self._interval_ms = rng.choice((60_000, _CITY_MS, 4 * HOUR_MS))
        self._length_ms = self._interval_ms * rng.randrange(20, 100)
        self._machines = machines(rng, self._length_ms)
        self._node = NodeLife(rng, self._role, 0.0, beyond)
        self._stream = Stream(1, Node(1, "a4cf12000001", self._role, bytes(16)), 1)
        self._anchors = ClockAnchors()
        self._contacts = Contacts()
        self._stored: list[Contact] = []  # what a kill leaves of the contacts
        self._waiting: list[Made] = []
        self._said: list[dict[str, Any]] = []
        self._rows: list[Row] = []
        self._newest_seq = 0
        self._machine: Machine | None = None
        self._process_ms = 0.0
        self._looked_ms = -float(DAY_MS)
        self._loss = rng.choice((0.02, 0.3, 0.9))

    def live(self) -> Life:
        """Go through the node's wakes in their order."""
        rng, at_ms = self._rng, 0.0
        service_left = 0
        last: Made | None = None
        while at_ms < self._length_ms:
            at_ms += self._interval_ms * rng.uniform(0.9, 1.1)
            self._gateway_to(at_ms)
            if rng.random() < 0.03:
                off_ms = rng.choice((0.0, rng.uniform(0, 20) * self._interval_ms))
                at_ms += off_ms
                self._gateway_to(at_ms)
                self._node.boot(at_ms - rng.uniform(0, 20_000))
                service_left = 0
            if service_left and last is not None:
                service_left -= 1
                self._on_air(last, at_ms)
                continue
            if rng.random() < 0.02 and self._role == "bin":
                service_left = rng.randrange(1, 8)
            last = self._node.make(at_ms, service=service_left > 0)
            self._waiting.append(last)
            self._on_air(last, last.on_air_ms)
        return self

    # --- the gateway's side ---

    def _gateway_to(self, at_ms: float) -> None:
        """Bring the machine and its process to this moment."""
        here = [one for one in self._machines if one.start_ms <= at_ms < one.end_ms]
        machine = here[0] if here else None
        if machine is not self._machine:
            self._forget()
            self._machine = machine
            self._process_ms = at_ms
        elif self._rng.random() < 0.02:
            self._forget()
            self._process_ms = at_ms
        if machine is None:
            return
        if not self._anchors.known(machine.boot_id):
            self._anchors.begin(machine.boot_id)
        if at_ms - self._looked_ms >= _LOOK_MS:
            self._looked_ms = at_ms
            self._said += self._anchors.look(machine.moment(at_ms))[1]
        moment = machine.moment(at_ms)
        if self._contacts.due(moment.boot_id, moment.boottime_ms):
            self._stored = list(self._timeline.contacts[-4:])

    @property
    def _timeline(self) -> Timeline:
        return self._contacts.of(self._stream)

    def _forget(self) -> None:
        """The process was killed: what the last hour's batch held is what there is."""
        if self._rng.random() < 0.3:  # or it ended in peace
            self._stored = list(self._timeline.contacts[-4:])
        self._contacts = Contacts()
        for contact in self._stored:
            self._contacts.meet(self._stream, contact)

    def _on_air(self, made: Made, at_ms: float) -> None:
        """A wake's radio: heard or not, called on or not."""
        machine, rng = self._machine, self._rng
        if machine is None or at_ms >= machine.end_ms:
            return
        if self._role == "bin" and rng.random() >= self._loss:
            late_ms = _DOOR_MS + 8000.0 if rng.random() < 0.05 else 300.0
            self._hear(machine, made, at_ms + rng.uniform(0, late_ms))
        every = 0.9 if self._role == "lamp" else 0.15 + 0.3 * made.service
        if rng.random() < every:
            self._call(machine, at_ms + rng.uniform(100, _DOOR_MS))

    def _hear(self, machine: Machine, made: Made, at_ms: float) -> None:
        if made not in self._waiting:
            return  # a repetition of what is stored: a duplicate
        if made.seq < self._newest_seq:
            return  # inside a gap: held back
        moment = machine.moment(at_ms)
        timeline = self._timeline
        timeline.heard(made.seq, moment.boot_id, moment.boottime_ms)
        since = machine.boottime.at(at_ms) - machine.boottime.at(self._process_ms)
        age_ms = _AGE_MS + (STALE_MS if since < STALE_MS else 0)
        span = timeline.advert(
            made.seq, moment.boot_id, moment.boottime_ms, age_ms, repeated=made.service
        )
        self._store(machine, made, at_ms + self._rng.uniform(0, 500), span, "advert")

    def _call(self, machine: Machine, at_ms: float) -> None:
        """Ask the node for its clock and for what is missing."""
        rng, node = self._rng, self._node
        asked = machine.moment(at_ms - rng.uniform(0, 400)).boottime_ms
        uptime_s = node.uptime_s(at_ms)
        answered_ms = at_ms + rng.uniform(0, 400)
        answered = machine.moment(answered_ms).boottime_ms
        contact = Contact(machine.boot_id, node.boot_no, uptime_s, node.last_seq, asked, answered)
        self._contacts.meet(self._stream, contact)
        if rng.random() < 0.3:
            return  # the session broke off
        for made in list(self._waiting):
            moment = machine.moment(answered_ms + 50)
            stamp = Stamp(made.seq, made.node_boot_no, made.uptime_s)
            span = self._timeline.place(
                stamp, moment.boot_id, moment.boottime_ms, self._anchors.mapping
            )
            how = "polled" if self._role == "lamp" else "fetched"
            self._store(machine, made, answered_ms + 50, span, how)

    def _store(self, machine: Machine, made: Made, at_ms: float, span: Span, how: str) -> None:
        self._waiting.remove(made)
        moment = machine.moment(at_ms)
        axis = None if span.boot_id == moment.boot_id else span.boot_id
        kind = "lamp" if self._role == "lamp" else "fill"
        arrival = (moment.boot_id, moment.boottime_ms, moment.wall_ms, moment.quality)
        times = (axis, span.t_min_ms, span.t_ms, span.t_max_ms)
        reading = Reading(0, 1, made.seq, kind, *arrival, *times)
        row = Row(made, machine, reading, self._time(reading), how)
        self._rows.append(row)
        self._newest_seq = max(self._newest_seq, made.seq)

    def _time(self, reading: Reading) -> dict[str, Any]:
        """Return what a consumer is told of a reading's time, as of now."""
        return msgspec.to_builtins(time_of(reading, self._anchors))  # type: ignore[no-any-return]

    # --- the judge's ---

    def judge(self, judged: Judged, number: int) -> None:
        """Compare every stored reading with the truth."""
        for row in self._rows:
            judged.counts["readings"] += 1
            judged.counts[row.how] += 1
            final = self._time(row.reading)
            judged.counts[final["quality"]] += 1
            axis = next(one for one in self._machines if one.boot_id == _axis(final))
            truth_ms = axis.boottime.at(row.made.measured_ms)
            utc_ms = EPOCH_MS + row.made.measured_ms
            self._check(judged, "outside_range", number, row, truth_ms, final, "t")
            self._check(judged, "outside_sent_utc", number, row, utc_ms, row.sent, "utc")
            self._check(judged, "outside_utc", number, row, utc_ms, final, "utc")
            by_anchors = self._as_a_consumer(final)
            self._check(judged, "outside_by_anchors", number, row, utc_ms, by_anchors, "utc")
            if final["t_min_ms"] is None:
                judged.counts["open"] += 1
            else:
                width = final["t_max_ms"] - final["t_min_ms"]
                judged.widths["range"].append(width)
                if self._interval_ms == _CITY_MS:
                    judged.widths[f"range_{row.how}_every_15_min"].append(width)
                error_ms = abs(final["t_ms"] - truth_ms)
                judged.errors["error"].append(error_ms)
                if self._interval_ms == _CITY_MS:
                    judged.errors[f"error_{row.how}_every_15_min"].append(error_ms)
            if None not in (final["utc_min_ms"], final["utc_max_ms"]):
                width = final["utc_max_ms"] - final["utc_min_ms"]
                judged.widths[f"utc_{final['quality']}"].append(width)

    @staticmethod
    def _check(
        judged: Judged,
        name: str,
        number: int,
        row: Row,
        truth_ms: float,
        time: dict[str, Any],
        prefix: str,
    ) -> None:
        """Truth and estimate must lie in the range; a millisecond is what cutting takes."""
        low, guess, high = (time.get(f"{prefix}{end}_ms") for end in ("_min", "", "_max"))
        beside = (low is not None and truth_ms < low - 1) or (
            high is not None and truth_ms > high + 1
        )
        astray = guess is not None and not (
            (low is None or low <= guess) and (high is None or guess <= high)
        )
        if beside or astray:
            judged.counts[name] += 1
            judged.missed.append(
                f"{name}: life {number}, {row.how} {row.made}: {truth_ms:.0f} not in {time}"
            )

    def _as_a_consumer(self, time: dict[str, Any]) -> dict[str, Any]:
        """Return the wall time by subtraction, from the newest anchor message of the boot."""
        mine = [one for one in self._said if one["boot_id"] == _axis(time)]
        if not mine or mine[-1]["offset_ms"] is None:
            return {}
        anchor = mine[-1]
        ends: dict[str, Any] = {}
        for name, sign in (("min", -1), ("max", 1)):
            t_ms = time[f"t_{name}_ms"]
            if t_ms is not None:
                drift = abs(t_ms - anchor["boottime_ms"]) * anchor["drift_ppm"] / 1e6 + 1
                ends[f"utc_{name}_ms"] = (
                    t_ms + anchor["offset_ms"] + sign * (anchor["uncertainty_ms"] + drift)
                )
        return ends
