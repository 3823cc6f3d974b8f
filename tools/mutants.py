#!/usr/bin/env python3
"""Breaks each mechanism on purpose and expects its test to fail: a test that cannot fail is none.

Rule: a mutant is one replacement in one file of a copy of the tree; a test that stays green, or a
text that is no longer there, is a failure of this run. docs/testing.md lists the same names.
"""

from __future__ import annotations

import argparse
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
from typing import Protocol, TypeVar

from mutant_tables import clocks, commands, gateway, group, links, node, store, tools, upstream
from mutant_tables.mutant import Mutant
from rich.console import Console
from rich.progress import Progress

TOP = Path(__file__).resolve().parents[1]
_TEST_S = 180
_WORKERS = 2  # most of a street's time is waiting


TABLES = (node, links, gateway, clocks, store, upstream, commands, group, tools)
MUTANTS = [one for table in TABLES for one in table.MUTANTS]


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_HasName)


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


def chosen_of(all_of_them: list[Named], about: str, arguments: list[str]) -> list[Named]:
    """Return those whose name contains one of the arguments, all without any; SystemExit: none.

    about: the first sentence of --help.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "words", nargs="*", metavar="WORDS", help="only those whose name contains them [all]"
    )
    words = parser.parse_args(arguments).words
    chosen = [one for one in all_of_them if not words or any(word in one.name for word in words)]
    if not chosen:
        parser.error(f"no name contains {' or '.join(map(repr, words))}; see docs/testing.md")
    return chosen


def main(arguments: list[str]) -> int:
    """Try every mutant, or those that were asked for."""
    wanted = chosen_of(MUTANTS, (__doc__ or "").split("\n")[0], arguments)
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
    raise SystemExit(main(sys.argv[1:]))
