"""Shows how far the search for an interpreter is: a line for each step, and a bar at a terminal.

Rule: the lines stay, the bar goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress

_STEPS = 5  # what the longest way round, building, says about itself


@contextlib.contextmanager
def telling(console: Console) -> Iterator[Callable[[str], None]]:
    """Yield the function that takes a step's line."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("looking for MicroPython", total=_STEPS)

        def say(line: str) -> None:
            console.print(line, highlight=False)
            progress.update(task, description=line, advance=1)

        yield say
