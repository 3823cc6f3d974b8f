"""The figures of a run, flat and with their units, from the compared sets.

Rule: a percentile is one of the measured values (nearest rank); without any value it is None.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from kerb_check.commands import Outcome
from kerb_check.lampfaults import Faults
from kerb_check.model import Identity
from kerb_check.readings import Comparison, Sets
from kerb_check.times import Times
from kerb_check.world import Burst

Value = float | int | str | None


def percentile(values: list[float], share: float) -> float | None:
    """Return the nearest-rank percentile (share 0 to 1) of the values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _round(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def collect(
    sets: Sets, comparison: Comparison, commands: Outcome, faults: Faults, times: Times
) -> dict[str, Value]:
    """Return every figure that the readings, commands and lamp faults give."""
    stored = {reading.identity for reading in sets.database.readings}
    opened, closed = _gaps(sets, comparison)
    on_flash = sum(len(flash.readings) for flash in sets.flash.values())
    return {
        "readings_measured": comparison.measured,
        "readings_on_flash": on_flash,
        "readings_stored": len(stored),
        "readings_delivered_unique": len(comparison.unique),
        "duplicates": comparison.duplicates,
        "lost_by_broker_and_replayed": comparison.by_replay,
        "gateways": len(sets.databases),
        "duplicates_across_gateways": comparison.duplicates_across,
        "lost_by_one_gateway": comparison.lost_by_one,
        "gaps_opened": opened,
        "gaps_closed": closed,
        "declared_lost": len(comparison.declared_lost),
        "unaccounted": _unaccounted(comparison),
        "replays_injected": len(sets.world.injected),
        "replays_rejected": _replays_rejected(sets, comparison),
        "commands_sent": commands.sent,
        "commands_confirmed": commands.confirmed,
        "commands_applied": commands.applied,
        "lamp_faults_set": faults.set,
        "lamp_faults_reported": faults.reported,
        "findings": sum(len(part.findings) for part in (comparison, commands, faults, times)),
        **_errors(comparison),
        "time_error_ms_p95": _round(percentile(times.errors_ms, 0.95), 0),
        "time_range_ms_p50": _round(percentile(times.ranges_ms, 0.5), 0),
        **_delays(sets, comparison),
    }


def _unaccounted(comparison: Comparison) -> int:
    """Count numbers that nothing explains, and readings that are not what was stored."""
    others = {f.subject for f in comparison.findings if f.unaccounted and f.kind != "unaccounted"}
    return len(comparison.unaccounted) + len(others - {str(i) for i in comparison.unaccounted})


def _gaps(sets: Sets, comparison: Comparison) -> tuple[int, int]:
    """Count the holes that the gateway saw in the live numbers, and those filled by the end.

    A hole is a run of numbers that did not come as adverts in their turn; first contact counts.
    """
    live: dict[tuple[str, int], list[int]] = defaultdict(list)
    for reading in sets.database.readings:
        if reading.content.get("via") == "advert":
            live[(reading.identity.node, reading.identity.epoch)].append(reading.identity.seq)
    explained = set(comparison.unique) | comparison.declared_lost
    last = _last_numbers(explained)
    opened = closed = 0
    for (node, epoch), newest in last.items():
        heard = set(live.get((node, epoch), ()))
        if not heard:
            continue  # a polled node: what it has is asked for, nothing is ever missed
        for first_seq, last_seq in _runs(newest, heard):
            opened += 1
            closed += all(
                Identity(node, epoch, seq) in explained for seq in range(first_seq, last_seq + 1)
            )
    return opened, closed


def _last_numbers(identities: set[Identity]) -> dict[tuple[str, int], int]:
    last: dict[tuple[str, int], int] = defaultdict(int)
    for identity in identities:
        stream = (identity.node, identity.epoch)
        last[stream] = max(last[stream], identity.seq)
    return last


def _runs(newest: int, heard: set[int]) -> list[tuple[int, int]]:
    """Return the runs of numbers in 1..newest that were not heard."""
    runs: list[tuple[int, int]] = []
    for seq in range(1, newest + 1):
        if seq in heard:
            continue
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return runs


def _replays_rejected(sets: Sets, comparison: Comparison) -> int:
    """Count injected adverts that left no second or altered reading behind."""
    accepted = {
        f.subject for f in comparison.findings if f.kind in ("replay accepted", "stored twice")
    }
    return sum(
        not any(
            s.startswith(f"{row['node']}/") and s.endswith(f"/{row['counter']}") for s in accepted
        )
        for row in sets.world.injected
    )


def _errors(comparison: Comparison) -> dict[str, Value]:
    distances: list[float] = []
    volumes: list[float] = []
    for burst, delivered in _measured_pairs(comparison):
        if delivered.get("quality") != "good":
            continue
        distances.append(abs(delivered["distance_mm"] - burst.distance_true_mm))
        if delivered.get("fill_pct") is not None:
            volumes.append(abs(delivered["fill_pct"] - min(100.0, burst.fill_true_pct)))
    return {
        "fill_error_mm_p50": _round(percentile(distances, 0.5)),
        "fill_error_mm_p95": _round(percentile(distances, 0.95)),
        "volume_error_points_p95": _round(percentile(volumes, 0.95), 2),
    }


def _measured_pairs(comparison: Comparison) -> list[tuple[Burst, dict[str, Any]]]:
    pairs = []
    for alignment in comparison.alignments.values():
        for burst, record in alignment.pairs:
            delivered = comparison.unique.get(record.identity)
            if delivered is not None:
                pairs.append((burst, delivered.content))
    return pairs


def _delays(sets: Sets, comparison: Comparison) -> dict[str, Value]:
    """Time from the first advert on the air to the subscriber, for what was heard live."""
    delays: list[float] = []
    for identity, reading in comparison.unique.items():
        sent = sets.world.adverts.get((identity.node, identity.seq))
        if reading.content.get("via") == "advert" and sent is not None:
            delays.append((reading.extra["t_s"] - sent) * 1000)
    return {
        "advert_to_delivered_ms_p50": _round(percentile(delays, 0.5), 0),
        "advert_to_delivered_ms_p99": _round(percentile(delays, 0.99), 0),
    }
