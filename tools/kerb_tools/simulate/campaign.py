"""Many gateway-years: each year is a street of its own with a seed of its own.

Rule: year number n of a campaign with seed s is exactly the run with seed s + n, so one year can
be run again alone; the campaign's hash is that of its years' hashes. Where the seed is a multiple
of three, two gateways share the street's bins, for half as long, and where it is one of six,
three for a third: that is one gateway-year too.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from kerb_tools.simulate.chance import Odds
from kerb_tools.simulate.house import House
from kerb_tools.simulate.street import Street

GROUP_EVERY = 3
THREE_EVERY = 6


@dataclass
class Year:
    """What one run has shown."""

    seed: int
    years: float
    finding: str
    tail: list[str]
    counts: Counter[str]
    branches: Counter[str]
    digest: str
    took_s: float


@dataclass
class Campaign:
    """What all runs together have shown."""

    years: list[Year] = field(default_factory=list)

    @property
    def finding(self) -> Year | None:
        """The first run that found something."""
        return next((year for year in self.years if year.finding), None)

    def counts(self) -> Counter[str]:
        """Return the sums."""
        return sum((year.counts for year in self.years), Counter())

    def branches(self) -> Counter[str]:
        """Return how often each branch was taken."""
        return sum((year.branches for year in self.years), Counter())

    def digest(self) -> str:
        """Return the hash of all hashes."""
        text = " ".join(year.digest for year in self.years)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def gateways_of(seed: int) -> int:
    """Return how many gateways serve the street of a seed."""
    if seed % THREE_EVERY == 0:
        return 3
    return 1 if seed % GROUP_EVERY else 2


def run_one(seed: int, years: float, nodes: int, dense: float) -> Year:
    """Run one street of so many gateway-years; dense: mishaps happen so many times as often."""
    began = time.process_time()
    gateways = gateways_of(seed)
    street = Street(seed, years / gateways, nodes, Odds().times(dense), gateways=gateways)
    finding = street.run()
    counts = Counter(
        measured=street.truth.rows,
        adverts_heard=street.air.heard,
        group_gateway_years=round(years) if street.grouped else 0,
        takeovers=street.owners.takeovers,
        claims=street.owners.claims,
        visits_that_outlast_a_lease=street.owners.outlasted,
    )
    for house in street.houses:
        counts += _counts(house)
    return Year(
        seed,
        years,
        "" if finding is None else str(finding),
        [] if finding is None else street.trace.tail(),
        counts,
        street.coverage.taken,
        street.trace.digest(),
        time.process_time() - began,
    )


def _counts(house: House) -> Counter[str]:
    """Return what one gateway's judge has counted."""
    judge, nodes = house.judge, house.street.nodes.values()
    mine = [one for one in nodes if one.role == "bin" or one in house.bus.units.values()]
    counts = Counter(
        readings=sum(house.street.truth.of_node(one.node_id) for one in mine),
        arrived=judge.arrivals.arrived_rows,
        arrived_again=judge.arrivals.repeated_rows,
        declared_lost=judge.lost_rows,
        lives=house.lives,
    )
    commands = {f"commands_{result}": n for result, n in judge.commands.ended.items()}
    return counts + Counter(commands) + judge.times.counts


def _one(task: tuple[int, float, int, float]) -> Year:
    return run_one(*task)


def run(
    seed: int, years: float, nodes: int, *, dense: float = 1.0, jobs: int = 1
) -> Iterator[Year]:
    """Run the years, `jobs` processes side by side; yields them in order, to the first finding."""
    whole = math.ceil(years)
    tasks = [(seed + n, min(1.0, years - n), nodes, dense) for n in range(whole)]
    if jobs == 1 or whole == 1:
        yield from _to_the_first_finding(map(_one, tasks))
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        yield from _to_the_first_finding(pool.imap(_one, tasks))


def _to_the_first_finding(years: Iterator[Year]) -> Iterator[Year]:
    for year in years:
        yield year
        if year.finding:
            return
