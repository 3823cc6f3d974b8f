"""kerb faults: faults on real parts, until the budget is met; then what broke, and how long
recovery took.

A kind alone (`kerb faults states`) or a plan (`kerb faults plan faults`, what `make faults` runs).
It goes on where it was ended; exit status 1 when anything was not as the contract says.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from kerb_tools.faults import page, report, runner, simulate
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.journal import Line, tree_digest
from kerb_tools.faults.kinds import KINDS, PLANS
from kerb_tools.parser import new as parser_of

_TOP = Path(__file__).resolve().parents[3]


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "kerb faults",
        __doc__,
        "kerb faults states --budget 3000 --seed 7 --json",
        "kerb faults plan faults",
        "kerb faults plan campaign --work build/campaign",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for kind in KINDS.values():
        one = kinds.add_parser(kind.name, help=kind.unit)
        one.add_argument(
            "--budget", type=_positive, default=kind.portion, metavar="N", help="how many"
        )
        _common(one)
    plan = kinds.add_parser("plan", help="all kinds, one after the other")
    plan.add_argument("plan", choices=list(PLANS))
    _common(plan)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=1, help="the first job's [1]")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/faults"),
        help="where lines and report lie [build/faults]",
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    chosen = _parser().parse_args(arguments)
    plan = _plan(chosen.plan) if chosen.kind == "plan" else {chosen.kind: chosen.budget}
    bench = chosen.plan if chosen.kind == "plan" else f"faults {chosen.kind}"
    try:
        with _terminated():
            found = _run(plan, chosen.seed, chosen.work, fresh=chosen.fresh)
    except FaultsError as error:
        print(f"kerb faults: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kerb faults: ended; the same command goes on from here", file=sys.stderr)
        return 130
    result = report.result(bench, chosen.seed, found, plan)
    broken = report.details(found)
    written = page.write(chosen.work, result, found, broken)
    for line in broken:
        print(f"  - {line}", file=sys.stderr)
    print(f"report: {written}", file=sys.stderr)
    if chosen.json:
        print(result.as_json())
    else:
        result.show(Console(file=sys.stdout))
    return 0 if result.ok else 1


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _plan(name: str) -> dict[str, int]:
    """Return a plan's kinds and budgets, without the simulation where there is none."""
    plan = dict(PLANS[name])
    if not simulate.is_there():
        years = plan.pop("simulate")
        print(f"kerb faults: no `kerb simulate` here: {years} years left out", file=sys.stderr)
    return plan


def _run(plan: dict[str, int], seed: int, work: Path, *, fresh: bool) -> dict[str, list[Line]]:
    tree = tree_digest(_TOP)
    found = {}
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {
            name: bars.add_task(KINDS[name].unit, total=budget) for name, budget in plan.items()
        }
        for name, budget in plan.items():
            if fresh:
                (work / f"{name}.jsonl").unlink(missing_ok=True)

            def show(done: int, task: object = tasks[name], most: int = budget) -> None:
                bars.update(task, completed=min(done, most))  # type: ignore[arg-type]

            found[name] = runner.run(
                name, budget=budget, seed=seed, work=work, tree=tree, progress=show
            )
    return found
