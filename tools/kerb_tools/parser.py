"""One form for every command's --help: what it does, its options, examples that can be copied.

Rule: what a module says to its readers ("Rule: ...") is not for the command's users.
"""

from __future__ import annotations

import argparse


def about(doc: str | None) -> str:
    """Return a module's docstring without what is for its readers only."""
    paragraphs = (doc or "").strip().split("\n\n")
    return "\n\n".join(part for part in paragraphs if not part.startswith("Rule:"))


def new(program: str, doc: str | None, *examples: str) -> argparse.ArgumentParser:
    """Return a parser for `program`; examples: whole command lines."""
    lines = "".join(f"\n  {example}" for example in examples)
    return argparse.ArgumentParser(
        prog=program,
        description=about(doc),
        epilog=f"examples:{lines}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
