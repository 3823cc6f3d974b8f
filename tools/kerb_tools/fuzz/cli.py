"""kerb fuzz: give every decoder and every door a stranger's bytes, and keep what breaks.

Each target runs in a process of its own with a bound on time and memory; then the wire's decoders
are compared on CPython and MicroPython, byte for byte. Findings are files in build/fuzz/findings;
--promote makes them vectors that `make test` replays. Exit status 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kerb_tools.bench.result import machine
from kerb_tools.fuzz import atheris_engine, findings
from kerb_tools.fuzz.campaign import Campaign, default_engine, result_of
from kerb_tools.fuzz.guard import Guard
from kerb_tools.fuzz.registry import TARGETS
from kerb_tools.interpreter import InterpreterError, find
from kerb_tools.parser import new as parser_of


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "kerb fuzz",
        __doc__,
        "kerb fuzz --for 600",
        "kerb fuzz --for 60 --target message --engine own",
        "kerb fuzz --replay build/fuzz/findings/message-error-0123456789.txt",
        "kerb fuzz --promote",
    )
    parser.add_argument(
        "--for", dest="seconds", type=float, default=600, metavar="S", help="seconds in all [600]"
    )
    parser.add_argument(
        "--target", action="append", metavar="NAME", help="only this one; may be given again"
    )
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    parser.add_argument(
        "--engine", choices=("auto", "atheris", "own"), default="auto",
        help="auto: atheris where it is installed, else our own loop",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the mutations; by default a new one")
    parser.add_argument(
        "--dir", type=Path, default=Path("build/fuzz"), help="corpus and findings [build/fuzz]"
    )
    parser.add_argument("--no-micropython", action="store_true", help="CPython only")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a finding's input again")
    parser.add_argument("--promote", action="store_true", help="make findings vectors and end")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for target in TARGETS.values():
            print(f"{target.name:16} {'both' if target.both else 'host'}  {target.about}")
        return 0
    if chosen.promote:
        return _promote(chosen.dir)
    if chosen.replay is not None:
        return _replay(chosen.replay)
    unknown = [name for name in chosen.target or [] if name not in TARGETS]
    if unknown:
        parser.error(f"--target {unknown[0]}: no such target; --list names them")
    if not 1 <= chosen.seconds <= 7 * 86400:
        parser.error(f"--for {chosen.seconds:g}: 1 to 604800 seconds")
    if chosen.engine == "atheris" and not atheris_engine.is_here():
        parser.error("--engine atheris: it is not installed; make fuzz does that where it can")
    return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    console = Console(stderr=True)
    names = list(dict.fromkeys(chosen.target or TARGETS))
    seed = random.SystemRandom().randrange(1, 1 << 31) if chosen.seed is None else chosen.seed
    engine = default_engine() if chosen.engine == "auto" else chosen.engine
    micropython = None
    if not chosen.no_micropython and any(TARGETS[name].both for name in names):
        try:
            micropython = find().path
        except InterpreterError as error:
            print(f"kerb fuzz: the interpreters cannot be compared: {error}", file=sys.stderr)
            return 2
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(),
        TextColumn("{task.fields[about]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=chosen.seconds, about="")
        spent_s: dict[str, float] = {}

        def say(said: dict[str, Any]) -> None:
            spent_s[said["target"]] = said["seconds"]
            progress.update(
                task,
                description=said["target"],
                completed=sum(spent_s.values()),
                about=f"{said['executions']:>9,} runs, {len(said['findings'])} found",
            )

        campaign = Campaign(chosen.dir, names, chosen.seconds, seed, engine, micropython, say)
        parts = campaign.run()
    result = result_of(parts, seed) | {"engine": engine, "machine": machine()}
    _show(result, Console(stderr=chosen.json), chosen.dir)
    if chosen.json:
        print(json.dumps(result))
    return 0 if all(bar["ok"] for bar in result["bars"]) else 1


def _show(result: dict[str, Any], console: Console, folder: Path) -> None:
    table = Table(title=f"kerb fuzz, seed {result['seed']}", box=box.SIMPLE, padding=0)
    for name in ("target", "engine", "runs", "runs/s", "corpus", "lines", "peak MB", "found"):
        table.add_column(name, justify="left" if name in ("target", "engine") else "right")
    for name, part in result["targets"].items():
        lines = f"{part['lines']}/{part['lines_of']}" if part["lines_of"] else ""
        table.add_row(
            name,
            part["engine"],
            f"{part['executions']:,}",
            f"{part['executions_s']:,.0f}",
            str(part["corpus"]),
            lines,
            str(part["peak_rss_mb"]),
            str(len(part["findings"])),
        )
    console.print(table)
    for part in result["targets"].values():
        for signature in part["findings"]:
            console.print(f"found: {signature}", highlight=False)
    figures = result["figures"]
    console.print(
        f"{figures['executions']:,} runs, {figures['crashes']} crashes, {figures['hangs']} hangs, "
        f"{figures['memory']} beyond their memory; files: {folder / 'findings'}",
        highlight=False,
    )


def _promote(folder: Path) -> int:
    if not findings.VECTORS.parent.is_dir():
        print("kerb fuzz: --promote: only in a checkout of the project", file=sys.stderr)
        return 2
    for one in findings.promote(folder, findings.VECTORS):
        print(f"{one.target} {one.data.hex()}")
    return 0


def _replay(path: Path) -> int:
    """Run the inputs of a file; exit status 1 when one of them is still a finding."""
    try:
        vectors = findings.read(path)
    except (OSError, ValueError) as error:
        print(f"kerb fuzz: --replay {path}: {error}", file=sys.stderr)
        return 2
    bad = 0
    for one in vectors:
        target = TARGETS.get(one.target)
        if target is None:
            print(f"kerb fuzz: {path}: no target {one.target!r}", file=sys.stderr)
            return 2
        outcome = Guard(target, target.make()).run(one.data)
        print(f"{one.target} {one.data.hex()[:60]}: {outcome.word}")
        if outcome.finding is not None:
            print(outcome.finding.detail)
            bad += 1
    return 1 if bad else 0
