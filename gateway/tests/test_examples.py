"""The examples of docs/operations.md are run, word for word."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest
from gateways import fill, write_config
from kerb_gateway.cli import app
from typer.testing import CliRunner

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def examples(name: str) -> list[tuple[str, str]]:
    """Return (command, output) of an example, white space squeezed."""
    block = re.search(
        rf"<!-- example: {name} -->(.*?)<!-- example: end -->", PAGE.read_text(), re.S
    )
    assert block is not None
    parts = re.split(r"^    \$ kerb-gateway ", block[1], flags=re.M)[1:]
    return [(first, squeezed(rest)) for first, _, rest in (part.partition("\n") for part in parts)]


def squeezed(text: str) -> str:
    """Return a text without layout, and without the size of a message."""
    return re.sub(r"\d+ (?=kerb/)", "N ", " ".join(text.replace("─", "").split()))


def test_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(tmp_path / "gateway.sqlite", 4, buried=True))
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = examples("letters")
    assert len(shown) == 6
    for command, output in shown:
        answer = CliRunner().invoke(app, shlex.split(command), env={"COLUMNS": "120"})
        assert squeezed(answer.stdout + answer.stderr) == output, command
