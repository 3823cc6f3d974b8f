"""The node's pure parts under both interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from streets import interpreter

HERE = Path(__file__).parent
TOP = HERE.parents[1]


@pytest.mark.parametrize("which", ["cpython", "micropython"])
def test_pure_node(which: str, tmp_path: Path) -> None:
    paths = [str(HERE), str(TOP / "firmware"), str(TOP / "shared"), str(TOP / "shared/tests")]
    if which == "cpython":
        program, name = [sys.executable], "PYTHONPATH"
    else:
        program, name = [str(interpreter()), "-X", "heapsize=256wK"], "MICROPYPATH"
        paths.append(".frozen")
    answer = subprocess.run(
        [*program, str(HERE / "run.py")],
        cwd=tmp_path,
        env=os.environ | {name: ":".join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert " 0 failed" in answer.stdout
