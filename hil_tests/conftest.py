"""One `board` fixture: the same tests against a virtual board or a real one.

Rule: a test speaks to the fixture only, in the words of hil_tests/bench.py; nothing of the
simulator is imported by a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, serial_bench, virtual_bench


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--board", default="virtual", help="virtual (default), or serial:/dev/ttyUSB0 for a rig"
    )


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench with a freshly provisioned bin node on it, powered off."""
    yield from _bench(request, tmp_path, "bin")


@pytest.fixture
def lamp_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench with a freshly provisioned lamp node on it, powered off."""
    yield from _bench(request, tmp_path, "lamp")


def _bench(request: pytest.FixtureRequest, tmp_path: Path, role: str) -> Iterator[Bench]:
    board = request.config.getoption("--board")
    made = virtual_bench(tmp_path, role) if board == "virtual" else serial_bench(board, role)
    try:
        yield made
    finally:
        made.close()
