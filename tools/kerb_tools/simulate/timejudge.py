"""Whether each reading was made when its message says, by what the simulated node knows.

Rule: a range that the truth lies outside of is a finding, however narrow the miss, on the axis of
the boot that it names, in wall time as it was sent, and in wall time as a consumer works it out
from the anchors once they are known. Only an advert that somebody kept back may seem younger than
it is (docs/threat-model.md).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kerb_tools.bench.lives import EPOCH_MS

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House

_KEPT_BACK_MS = 13_700  # what a bin sends comes at most so long after it was made
_CUT_MS = 1.0  # what cutting to whole milliseconds takes
_EVERY = 16  # of the readings whose wall time was known at once, one in so many is kept

Ends = tuple[float | None, float | None]


class TimeJudge:
    """One for each gateway."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._anchors: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, list[tuple[str, float, int | None, int | None]]] = {}
        self.counts: Counter[str] = Counter()

    def arrived(self, message: dict[str, Any], made_s: float, *, kept_back: bool) -> None:
        """A reading has arrived for the first time; kept_back: its advert was sent again."""
        time, name = message["time"], message["id"]
        axis = time.get("t_boot_id") or time["boot_id"]
        machine = self._house.machine
        truth_ms = machine.on_axis(axis, made_s)
        if kept_back and message["via"] == "advert":
            kept_back = (
                machine.on_axis(time["boot_id"], made_s) + _KEPT_BACK_MS < (time["boottime_ms"])
            )
        else:
            kept_back = False
        span = (time["t_min_ms"], time["t_max_ms"])
        self._inside(name, truth_ms, span, time["t_ms"], kept_back)
        utc = (time["utc_min_ms"], time["utc_max_ms"])
        self._inside(name, EPOCH_MS + made_s * 1000, utc, time["utc_ms"], kept_back)
        self.counts[f"times_{time['quality']}"] += 1
        self.counts["times_open"] += span[0] is None
        if not kept_back and (time["quality"] != "ntp" or message["seq"] % _EVERY == 0):
            self._kept.setdefault(axis, []).append((name, made_s, *span))

    def _inside(
        self, name: str, truth_ms: float, ends: Ends, guess: float | None, kept_back: bool
    ) -> None:
        low, high = ends
        if low is not None and not kept_back and truth_ms < low - _CUT_MS:
            self._outside(name, truth_ms, ends)
        if high is not None and truth_ms > high + _CUT_MS:
            self._outside(name, truth_ms, ends)
        if guess is not None and (
            (low is not None and guess < low) or (high is not None and guess > high)
        ):
            self._house.judge.found("an estimate outside its range", name, f"{guess} in {ends}")

    def _outside(self, name: str, truth_ms: float, ends: Ends) -> None:
        self._house.judge.found("outside its range", name, f"{truth_ms:.0f} ms not in {ends}")

    def anchored(self, message: dict[str, Any]) -> None:
        """An anchor has arrived; the newest of a boot counts, one of NTP before a range."""
        known = self._anchors.get(message["boot_id"])
        if known is None or known["boottime_ms"] <= message["boottime_ms"]:
            self._anchors[message["boot_id"]] = message
            self.counts["anchors"] += 1

    def finish(self) -> None:
        """Resolve what was kept, as docs/mqtt-topics.md tells a consumer to."""
        for axis, readings in self._kept.items():
            anchor = self._anchors.get(axis)
            if anchor is None:
                self.counts["times_never_anchored"] += len(readings)
                continue
            offsets = _offsets(anchor)
            for name, made_s, low, high in readings:
                ends = (
                    _by_anchor(anchor, low, offsets[0], -1),
                    _by_anchor(anchor, high, offsets[1], 1),
                )
                self._inside(name, EPOCH_MS + made_s * 1000, ends, None, kept_back=False)
            self.counts["times_resolved_by_anchor"] += len(readings)


def _offsets(anchor: dict[str, Any]) -> Ends:
    """Return the least and the greatest wall time less boottime at the anchor's moment."""
    if anchor["quality"] == "range":
        return anchor["offset_min_ms"], anchor["offset_max_ms"]
    wide_ms = anchor["uncertainty_ms"]
    return anchor["offset_ms"] - wide_ms, anchor["offset_ms"] + wide_ms


def _by_anchor(
    anchor: dict[str, Any], t_ms: int | None, offset_ms: float | None, sign: int
) -> float | None:
    if t_ms is None or offset_ms is None:
        return None
    drift_ms = abs(t_ms - anchor["boottime_ms"]) * anchor["drift_ppm"] / 1e6 + 1
    return float(t_ms + offset_ms + sign * drift_ms)
