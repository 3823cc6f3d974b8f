"""Our own coverage-guided loop: needs nothing but the interpreter, and runs wherever it runs.

Rule: an input is kept when it reached a line for the first time or ended in a way that none had
ended before; what is kept is what later inputs are made from.
"""

from __future__ import annotations

import random

from kerb_tools.fuzz.lines import Lines
from kerb_tools.fuzz.mutate import Mutator
from kerb_tools.fuzz.session import Session

_CORPUS_MOST = 5000


def run(session: Session, seed: int) -> None:
    """Fuzz until the session's time is up."""
    target = session.target
    rng = random.Random(f"{seed} {target.name}")
    mutator = Mutator(
        rng, tokens=target.tokens, repair=target.repair, most_bytes=target.most_bytes
    )
    lines = session.lines = Lines(target.traced)
    lines.start()
    try:
        corpus = _first(session, lines)
        ends = {session.run(data).word for data in corpus}
        while not session.over:
            data = mutator.change(rng.choice(corpus), rng.choice(corpus))
            lines.new = 0
            outcome = session.run(data)
            if (lines.new or outcome.word not in ends) and len(corpus) < _CORPUS_MOST:
                ends.add(outcome.word)
                corpus.append(data)
                session.save(data)
    finally:
        lines.stop()


def _first(session: Session, lines: Lines) -> list[bytes]:
    """Return the seeds, and what earlier runs kept as far as it still reaches something new."""
    corpus = session.target.seeds() or [b""]
    for data in corpus:
        session.run(data)
    ends = set()
    for data in session.saved():
        if session.over:
            break
        lines.new = 0
        word = session.run(data).word
        if lines.new or word not in ends:
            ends.add(word)
            corpus.append(data)
            session.corpus += 1
    return corpus
