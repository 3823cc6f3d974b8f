"""Atheris (libFuzzer) as the engine, where it is installed: edges instead of lines, and fast.

Rule: optional. It has wheels for x86-64 only; what it finds and keeps is the same as our own
engine's, and either goes on with the other's corpus.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kerb_tools.fuzz.mutate import Mutator

if TYPE_CHECKING:  # what it imports must first be imported under instrumentation
    from kerb_tools.fuzz.session import Session

_TIMEOUT_S = 600
_OURS = 0.6  # the share of our own mutations among libFuzzer's


def is_here() -> bool:
    """Tell whether this interpreter has atheris."""
    return importlib.util.find_spec("atheris") is not None


def instrumented(packages: Sequence[str]) -> Any:
    """Return the context in which the packages must be imported for the first time."""
    return importlib.import_module("atheris").instrument_imports(include=list(packages))


def run(session: Session, seed: int) -> None:
    """Fuzz until the session's time is up; then the process ends: libFuzzer does not return."""
    atheris = importlib.import_module("atheris")
    target = session.target
    mutator = Mutator(
        random.Random(f"{seed} {target.name}"),
        tokens=target.tokens,
        repair=target.repair,
        most_bytes=target.most_bytes,
    )
    for data in target.seeds():
        session.save(data)
    pool = target.seeds() or [b""]

    def one(data: bytes) -> None:
        if session.over:
            session.corpus = len(list(session.corpus_folder.iterdir()))
            session.say(done=True)
            os._exit(0)
        session.run(data)

    def mutated(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < _OURS:
            return mutator.change(data, rng.choice(pool))[:most]
        return bytes(atheris.Mutate(data, most))

    options = [
        sys.argv[0],
        str(session.corpus_folder),
        f"-seed={seed or 1}",
        f"-max_len={target.most_bytes}",
        # The guard's limits come first; atheris takes 0 for "at once", and dies of it.
        f"-timeout={_TIMEOUT_S}",
        "-rss_limit_mb=0",
        f"-artifact_prefix={session.folder}/logs/",
        "-verbosity=0",
    ]
    atheris.Setup(options, one, custom_mutator=mutated)
    atheris.Fuzz()
