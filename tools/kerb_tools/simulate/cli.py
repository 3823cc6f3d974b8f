"""kerb simulate: years of a gateway's life on one thread, decided by one seed.

Exit status 0 when nothing was found, 1 when something was; then the last line says how to see it
again.
"""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kerb_tools.bench.result import Bar, Result
from kerb_tools.simulate import campaign
from kerb_tools.simulate.coverage import BRANCHES
from kerb_tools.simulate.long import LEAST_TAKEN, LONG_YEARS, READINGS_A_YEAR
from kerb_tools.simulate.timeline import YEAR_S

_TAIL_LINES = 15


def main(arguments: list[str]) -> int:
    """Run a campaign; return its exit status."""
    parser = argparse.ArgumentParser("kerb simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first year [1]")
    parser.add_argument("--years", type=float, default=0.05, help="gateway-years [0.05]")
    parser.add_argument("--nodes", type=int, default=20, help="of each gateway [20]")
    parser.add_argument("--dense", type=float, default=1, help="mishaps so much as often [1]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes [all cores]")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    chosen = parser.parse_args(arguments)
    if chosen.years <= 0 or chosen.nodes < 4 or chosen.jobs < 1:
        parser.error("--years above 0, --nodes of 4 or more and --jobs of 1 or more are needed")
    ran = campaign.Campaign()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("gateway-years", total=chosen.years)
        for year in campaign.run(
            chosen.seed, chosen.years, chosen.nodes, dense=chosen.dense, jobs=chosen.jobs
        ):
            ran.years.append(year)
            progress.advance(task, year.years)
    result = _result(ran, chosen.seed, chosen.years)
    if chosen.json:
        _say_finding(ran, chosen, sys.stderr)
        print(result.as_json())
    else:
        _show(ran, result)
        _say_finding(ran, chosen, sys.stdout)
    return 1 if ran.finding else 0


def _result(ran: campaign.Campaign, seed: int, years: float) -> Result:
    counts, branches = ran.counts(), ran.branches()
    took_s = sum(year.took_s for year in ran.years)
    result = Result("simulate", seed)
    result.figures = {
        "gateway_years": years,
        "simulated_days": round(sum(year.years for year in ran.years) * YEAR_S / 86400, 1),
        **counts,
        "readings_per_core_s": round(counts["readings"] / took_s),
        "core_s": round(took_s, 1),
        "trace_hash": ran.digest(),
        "branches": {name: branches.get(name, 0) for name in sorted({*BRANCHES, *branches})},
    }
    finding = ran.finding
    if finding is not None:
        result.figures |= {"finding": finding.finding, "finding_seed": finding.seed}
    least = min(branches.get(name, 0) for name in BRANCHES)
    long = years >= LONG_YEARS
    result.bars = [
        Bar("findings", float(finding is not None), 0, at_least=False),
        Bar("branch_taken_least", least, LEAST_TAKEN if long else 0, at_least=True),
        Bar(
            "readings_a_gateway_year",
            round(counts["readings"] / years),
            READINGS_A_YEAR if long else 0,
            at_least=True,
        ),
    ]
    return result


def _show(ran: campaign.Campaign, result: Result) -> None:
    console = Console(file=sys.stdout)
    table = Table("branch of the sequence table", "taken")
    table.columns[1].justify = "right"
    for name, number in result.figures.pop("branches").items():
        table.add_row(name, f"{number:,}")
    console.print(table)
    result.show(console)


def _say_finding(ran: campaign.Campaign, chosen: argparse.Namespace, file: object) -> None:
    year = ran.finding
    if year is None:
        return
    lines = [*year.tail[-_TAIL_LINES:], f"FOUND {year.finding}"]
    again = f"--years {year.years!r} --nodes {chosen.nodes} --dense {chosen.dense:g}"
    lines.append(f"again: kerb simulate --seed {year.seed} {again}")
    print("\n".join(lines), file=file)  # type: ignore[call-overload]
