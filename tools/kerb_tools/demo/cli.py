"""kerb demo: run a virtual street with a real gateway and check that nothing was lost.

Real MicroPython runs the node firmware, real bleak and pymodbus carry it, a real broker delivers
it; faults happen on purpose; then four sources are compared, reading by reading.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from kerb_check.verdict import Verdict, judge
from kerb_sim.street import TIME_SCALE, Street
from rich.console import Console
from rich.live import Live

from kerb_tools.demo import plot
from kerb_tools.demo.away import SMALL_LOG, go_away
from kerb_tools.demo.run import Demo, fresh_directory
from kerb_tools.demo.table import live
from kerb_tools.interpreter import Interpreter, InterpreterError, find
from kerb_tools.interpreter.progress import telling
from kerb_tools.parser import new as parser_of
from kerb_tools.system_parts import find_dbus_daemon

_SHOWN = 12
_EXAMPLES = (
    "kerb demo",
    "kerb demo --seed 8 --bins 12 --lamps 8 --for 90 --json",
    "kerb demo --away 28 --run run/away; kerb losses run/away",
)
_KILL_AT = 0.5  # of the time: the last of several gateways dies for good


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("kerb demo", __doc__, *_EXAMPLES)
    parser.add_argument("--bins", type=int, default=6, help="bin nodes [%(default)s]")
    parser.add_argument("--lamps", type=int, default=8, help="lamp nodes [%(default)s]")
    parser.add_argument(
        "--for",
        dest="for_s",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long measuring goes on [%(default)s]",
    )
    parser.add_argument("--seed", type=int, default=7, help="of world and faults [%(default)s]")
    parser.add_argument(
        "--gateways",
        type=int,
        default=1,
        help="so many hear the bins; the last of several is killed half-way [%(default)s]",
    )
    parser.add_argument(
        "--away",
        dest="away_s",
        type=float,
        default=0,
        metavar="SECONDS",
        help="the gateway is off so long in the middle, and the bins' logs are so small that "
        "they overwrite: see what `kerb losses` says then [%(default)s]",
    )
    parser.add_argument("--run", type=Path, help="where everything is left [run/<time>]")
    parser.add_argument(
        "--json", action="store_true", help="the last line on standard output is one JSON object"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Run the demo; exit status 1 if something is unaccounted for or a command unconfirmed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    bounds = (("bins", 0, 60), ("lamps", 0, 60), ("for_s", 5, 3600), ("gateways", 1, 4))
    for name, low, high in bounds:
        if not low <= getattr(options, name) <= high:
            parser.error(f"--{name.removesuffix('_s')}: {low} to {high}")
    if not 0 <= options.away_s <= options.for_s / 2:
        parser.error(f"--away: 0 to half of --for, {options.for_s / 2:g}")
    console = Console(stderr=options.json)
    try:
        run = fresh_directory(options.run)
        with telling(console) as say:
            interpreter = find(say=say)
    except (FileExistsError, InterpreterError) as error:
        print(f"kerb demo: {error}", file=sys.stderr)
        return 2
    dbus_daemon = find_dbus_daemon()
    if dbus_daemon is None:
        print("kerb demo: needs dbus-daemon: apt-get install dbus-daemon", file=sys.stderr)
        return 2
    street = Street(
        run,
        bins=options.bins,
        lamps=options.lamps,
        seed=options.seed,
        duration_s=options.for_s,
        interpreter=interpreter.path,
        dbus_daemon=dbus_daemon,
        gateways=options.gateways,
        bin_settings=SMALL_LOG if options.away_s else None,
    )
    _announce(console, street, interpreter)
    try:
        asyncio.run(_watch(console, street, options))
    except RuntimeError as error:
        print(f"kerb demo: {error}", file=sys.stderr)
        return 2
    verdict = judge(run)
    report = _report(street, interpreter, options.seed, verdict)
    (run / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    _summary(console, run, report, verdict)
    if options.json:
        print(json.dumps(report))
    return 0 if verdict.good else 1


def _announce(console: Console, street: Street, interpreter: Interpreter) -> None:
    console.print(f"interpreter: {interpreter.describe()}", highlight=False)
    console.print(
        f"broker: {street.broker.name}; fault plan {street.plan.hash}; product "
        f"intervals divided by {TIME_SCALE:g}",
        highlight=False,
    )


async def _watch(console: Console, street: Street, options: argparse.Namespace) -> None:
    """Run the demo behind a live table, or with a line now and then where there is no terminal."""

    async def during(demo: Demo) -> None:
        await asyncio.gather(_kill_the_last(demo), go_away(demo, options.away_s))

    for_s, seed = options.for_s, options.seed
    if not console.is_terminal:
        said: set[str] = set()

        def tell(line: str) -> None:
            phase = line.split(",")[0].split(":")[0]
            if phase not in said:
                said.add(phase)
                console.print(line, highlight=False)

        await Demo(street, for_s, seed, tell, during).run()
        return
    with Live(console=console, auto_refresh=False, transient=True) as screen:
        demo = Demo(street, for_s, seed, lambda line: None, during)
        demo.show = lambda line: screen.update(live(street, demo.peek.nodes(), line), refresh=True)
        await demo.run()


async def _kill_the_last(demo: Demo) -> None:
    """Of several gateways kill the last for good, half-way."""
    names = demo.street.gateways
    if len(names) > 1:
        await asyncio.sleep(demo.street.plan.duration_s * _KILL_AT)
        demo.street.record.write("fault", what="gateway killed", gateway=names[-1])
        await demo.kill_gateway(names[-1])


def _report(
    street: Street, interpreter: Interpreter, seed: int, verdict: Verdict
) -> dict[str, Any]:
    return verdict.figures | {
        "ok": verdict.good,
        "commit_interval_ms": street.commit_interval_ms,
        "time_scale": street.scale,
        "broker": street.broker.name,
        "interpreter": interpreter.describe(),
        "seed": seed,
        "plan_hash": street.plan.hash,
    }


def _summary(console: Console, run: Path, report: dict[str, Any], verdict: Verdict) -> None:
    """Say what happened in words, draw the picture, name what is wrong."""
    if verdict.broken:
        console.print("[red]The run cannot be judged:[/]")
        for line in verdict.broken:
            console.print(f"  {line}", highlight=False)
        return
    if verdict.sets and verdict.comparison:
        caption = (
            f"{report['readings_delivered_unique']} readings delivered, "
            f"{report['gaps_closed']} of {report['gaps_opened']} gaps closed, "
            f"{report['unaccounted']} unaccounted (seed {report['seed']})"
        )
        plot.draw(verdict.sets, verdict.comparison, run, caption)
    lines = [
        f"{report['readings_measured']} bursts measured; {report['readings_on_flash']} records "
        f"on the nodes' flash, {report['readings_stored']} stored by the gateway, "
        f"{report['readings_delivered_unique']} delivered "
        f"({report['duplicates']} duplicates among them)",
        f"{report['gaps_opened']} gaps opened, {report['gaps_closed']} closed; "
        f"{report['declared_lost']} numbers declared lost with a reason",
        f"{report['replays_rejected']} of {report['replays_injected']} replayed adverts rejected",
        f"{report['commands_sent']} commands sent, {report['commands_confirmed']} confirmed by "
        f"the lamps' own logs, {report['commands_applied']} applied",
        f"lamp faults: {report['lamp_faults_set']} set, {report['lamp_faults_reported']} reported",
        f"distance error p95 {report['fill_error_mm_p95']} mm; volume error p95 "
        f"{report['volume_error_points_p95']} points; advert to delivery p50 "
        f"{report['advert_to_delivered_ms_p50']} ms",
        f"time of measuring: off by at most {report['time_error_ms_p95']} ms (p95), "
        f"stated within {report['time_range_ms_p50']} ms (p50)",
    ]
    if report["lost_by_broker_and_replayed"]:
        lines.append(
            f"{report['lost_by_broker_and_replayed']} readings the broker had acknowledged and "
            "lost; the gateway sent them once more on request"
        )
    if report["gateways"] > 1:
        lines.append(
            f"{report['gateways']} gateways, one killed for good; "
            f"{report['duplicates_across_gateways']} readings came from a second one too"
        )
    for line in lines:
        console.print(f"  {line}", highlight=False)
    for finding in verdict.findings[:_SHOWN]:
        console.print(f"  [red]{finding}[/]", highlight=False)
    word = "[green]nothing is unaccounted for[/]" if verdict.good else "[red]NOT accounted for[/]"
    console.print(f"{word}; everything is in {run}")
