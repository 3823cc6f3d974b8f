"""Finds which stored reading came from which measured burst, by order and by the node's clock.

Rule: both sides are in order of time, so this is an alignment of two sequences: a burst without
a record was never stored, a record without a burst was invented.
"""

from __future__ import annotations

from dataclasses import dataclass

from kerb_check.model import Reading
from kerb_check.world import Burst

# uptime_s is cut to whole seconds and is taken some hundred ms before or after the last ping.
_CLOCK_SLACK_S = 2.5
_SKIP_BURST = 1.0
_SKIP_RECORD = 1.0


@dataclass
class Alignment:
    """pairs of (burst, record), and what is left over on either side."""

    pairs: list[tuple[Burst, Reading]]
    bursts_alone: list[Burst]
    records_alone: list[Reading]


def _cost(burst: Burst, record: Reading, boots: dict[int, int]) -> float | None:
    """Return how badly the two fit (0 to 1), or None if they cannot belong together."""
    if burst.counter is not None:
        # The advert that followed names its record; the clock of a slow machine does not.
        return 0.0 if burst.counter == record.identity.seq else None
    expected = boots.get(record.content["boot_no"])
    if expected is None:
        if burst.session in boots.values():
            return None  # that session is known to be another boot's
    elif expected != burst.session:
        return None
    apart = abs((burst.t_s - burst.session_t_s) - record.content["uptime_s"])
    return apart / _CLOCK_SLACK_S * 0.9 if apart <= _CLOCK_SLACK_S else None


def align(
    bursts: list[Burst], records: list[Reading], advertised: dict[int, set[int]]
) -> Alignment:
    """Align one node's bursts (in order of time) with its measured records (in order of seq).

    advertised: the power sessions in which the world heard an advert of each number.
    """
    boots = _boots(bursts, records, advertised)
    rows, columns = len(bursts), len(records)
    total = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    step = [[""] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows + 1):
        for j in range(columns + 1):
            if i or j:
                total[i][j], step[i][j] = _best(bursts, records, boots, total, i, j)
    return _walk(bursts, records, step)


def _best(
    bursts: list[Burst],
    records: list[Reading],
    boots: dict[int, int],
    total: list[list[float]],
    i: int,
    j: int,
) -> tuple[float, str]:
    choices: list[tuple[float, str]] = []
    if i and j:
        cost = _cost(bursts[i - 1], records[j - 1], boots)
        if cost is not None:
            choices.append((total[i - 1][j - 1] + cost, "pair"))
    if i:
        choices.append((total[i - 1][j] + _SKIP_BURST, "burst"))
    if j:
        choices.append((total[i][j - 1] + _SKIP_RECORD, "record"))
    return min(choices)


def _walk(bursts: list[Burst], records: list[Reading], step: list[list[str]]) -> Alignment:
    result = Alignment([], [], [])
    i, j = len(bursts), len(records)
    while i or j:
        if step[i][j] == "pair":
            i, j = i - 1, j - 1
            result.pairs.append((bursts[i], records[j]))
        elif step[i][j] == "burst":
            i -= 1
            result.bursts_alone.append(bursts[i])
        else:
            j -= 1
            result.records_alone.append(records[j])
    result.pairs.reverse()
    return result


def _boots(
    bursts: list[Burst], records: list[Reading], advertised: dict[int, set[int]]
) -> dict[int, int]:
    """Return boot_no -> session as far as it is known.

    A boot is known by what was advertised in it. Where nothing was, as many boots as sessions are
    taken in their order; else it stays open.
    """
    known = {
        record.content["boot_no"]: next(iter(heard_in))
        for record in records
        if len(heard_in := advertised.get(record.identity.seq, set())) == 1
    }
    if known:
        return known
    numbers = sorted({record.content["boot_no"] for record in records})
    sessions = sorted({burst.session for burst in bursts})
    return dict(zip(numbers, sessions, strict=True)) if len(numbers) == len(sessions) else {}
