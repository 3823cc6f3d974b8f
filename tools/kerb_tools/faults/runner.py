"""Runs jobs of a kind side by side until the budget is met, and goes on where it was ended.

Rule: seeds are taken in order, so the same first seed and budget mean the same jobs; what a job
found is on disk before the next one is begun. However a run ends, no process of a job stays.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from kerb_tools.faults import tether
from kerb_tools.faults.errors import FaultsError
from kerb_tools.faults.journal import Journal, Line
from kerb_tools.faults.kinds import KINDS, run_job
from kerb_tools.faults.outcome import Outcome

Progress = Callable[[int], None]


def run(
    name: str,
    *,
    budget: int,
    seed: int,
    work: Path,
    tree: str,
    progress: Progress = lambda done: None,
) -> list[Line]:
    """Return the lines of all jobs that make up the budget; FaultsError if one cannot run."""
    kind = KINDS[name]
    journal = Journal(work, name, tree)
    lines = journal.read(seed)
    done = sum(line.outcome.count for line in lines)
    progress(done)
    taken = {line.seed for line in lines}
    seeds = (number for number in itertools.count(seed) if number not in taken)
    running: dict[Future[tuple[Outcome, float]], tuple[int, int]] = {}
    with tied_pool(kind.workers) as pool:
        while done < budget or running:
            promised = done + sum(portion for _, portion in running.values())
            while len(running) < kind.workers and promised < budget:
                portion = min(kind.portion, budget - promised)
                number = next(seeds)
                running[pool.submit(_timed, name, number, portion, str(work))] = (number, portion)
                promised += portion
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, _ = running.pop(future)
                line = _line(name, number, future)
                journal.append(line)
                lines.append(line)
                done += line.outcome.count
                progress(done)
    return sorted(lines, key=lambda line: line.seed)


@contextlib.contextmanager
def tied_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose workers end, with all that they started, when this process does.

    They end with the block too: whoever wants an answer waits for it there.
    """
    context = multiprocessing.get_context("spawn")  # threads and forks do not go together
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=tether.hold, initargs=(theirs,)
    )
    try:
        yield pool
    finally:
        ours.close()
        pool.shutdown()
        theirs.close()


def _line(name: str, seed: int, future: Future[tuple[Outcome, float]]) -> Line:
    try:
        outcome, took_s = future.result()
    except BrokenProcessPool as error:
        raise FaultsError(f"{name}, seed {seed}: the job's process died") from error
    if not outcome.count:
        raise FaultsError(f"{name}, seed {seed}: nothing came of it")
    # As the journal keeps it: a run that goes on reports the same as the one that it goes on with.
    return Line(seed, round(took_s, 2), outcome)


def _timed(name: str, seed: int, portion: int, work: str) -> tuple[Outcome, float]:
    began = time.monotonic()
    return run_job(name, seed, portion, work), time.monotonic() - began
