"""Reads a file of one JSON object a line, and says exactly where such a file is broken.

Rule: a line that does not parse, or a file without its closing row, is a broken source, never
a shorter one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kerb_check.model import SourceError


def read(path: Path, *, closing: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of `path`; `closing`: the "type" that one of the rows must have.

    Raises SourceError if the file is missing, a line is damaged or the closing row is absent.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path.name}: cannot be read: {error}") from error
    rows = [_row(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line]
    if text and not text.endswith("\n"):
        raise SourceError(f"{path.name}: cut short inside its last line")
    if closing is not None and not any(row.get("type") == closing for row in rows):
        raise SourceError(f"{path.name}: cut short: no {closing!r} row among {len(rows)} rows")
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{path.name}: line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise SourceError(f"{path.name}: line {number} is not an object")
    return row
