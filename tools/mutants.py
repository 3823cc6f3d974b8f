#!/usr/bin/env python3
"""Breaks each mechanism on purpose and expects its test to fail: a test that cannot fail is none.

Rule: a mutant is one replacement in one file of a copy of the tree; a test that stays green, or a
text that is no longer there, is a failure of this run. docs/testing.md lists the same names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from mutant_tables import clocks, commands, gateway, group, links, node, store, tools, upstream
from mutant_tables.mutant import Mutant
from rich.console import Console
from rich.progress import Progress

TOP = Path(__file__).resolve().parents[1]
_TEST_S = 180
_WORKERS = 2  # most of a street's time is waiting


TABLES = (node, links, gateway, clocks, store, upstream, commands, group, tools)
MUTANTS = [one for table in TABLES for one in table.MUTANTS]


def copy_tree(target: Path) -> None:
    """Copy what git tracks, and what it does not know yet, into `target`."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=TOP, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        if (TOP / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, target / name)


def _red(tree: Path, mutant: Mutant) -> str:
    """Return "" if the mutant's test fails in the broken tree, else what is wrong."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return f"its text stands {text.count(mutant.old)} times in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new))
    paths = os.pathsep.join(str(tree / name) for name in ("shared", "gateway", "tools"))
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", mutant.test],
            cwd=tree, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
            timeout=_TEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "its test did not end"
    finally:
        path.write_text(text)
    if answer.returncode == 1:
        return ""
    return "its test stays green" if answer.returncode == 0 else answer.stdout[-300:]


def _try_all(wanted: list[Mutant], done: Callable[[Mutant, str], None]) -> None:
    """Try each mutant, _WORKERS at a time, every worker in a tree of its own."""
    trees: SimpleQueue[Path] = SimpleQueue()

    def attempt(mutant: Mutant) -> None:
        tree = trees.get()
        try:
            done(mutant, _red(tree, mutant))
        finally:
            trees.put(tree)

    with contextlib.ExitStack() as scratch, ThreadPoolExecutor(_WORKERS) as pool:
        for _ in range(_WORKERS):
            tree = Path(scratch.enter_context(tempfile.TemporaryDirectory()))
            copy_tree(tree)
            trees.put(tree)
        list(pool.map(attempt, wanted))


def main() -> int:
    """Try every mutant, or those whose name contains an argument."""
    wanted = [m for m in MUTANTS if not sys.argv[1:] or any(a in m.name for a in sys.argv[1:])]
    survivors = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("mutants", total=len(wanted))

        def done(mutant: Mutant, why: str) -> None:
            verdict = "SURVIVED" if why else "killed  "
            print(f"{verdict}  {mutant.name}" + (f": {why}" if why else ""), flush=True)
            if why:
                survivors.append(mutant.name)
            progress.advance(task)

        _try_all(wanted, done)
    print(f"{len(wanted) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
