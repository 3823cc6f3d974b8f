"""One `board` fixture: the same tests against a virtual board or a real one.

Rule: a test speaks to the fixture only, in the words of hil_tests/bench.py; nothing of the
simulator is imported by a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hil_tests", "what the HIL tests run on")
    group.addoption(
        "--board", default="virtual", help="virtual (default), or serial:/dev/ttyUSB0 for a rig"
    )
    group.addoption("--probe", help="port of the rig's probe, a second ESP32")
    group.addoption("--bus", help="port of the rig's RS-485 adapter")
    group.addoption("--bus-parity", choices="NEO", default="E", help="[E]; a pty knows none")
    group.addoption("--power", help="command that is called with on, off or reset")


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench with a freshly provisioned bin node on it, powered off."""
    yield from _bench(request, tmp_path, "bin")


@pytest.fixture
def lamp_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench with a freshly provisioned lamp node on it, powered off."""
    yield from _bench(request, tmp_path, "lamp")


def _bench(request: pytest.FixtureRequest, tmp_path: Path, role: str) -> Iterator[Bench]:
    made = _make(request.config, tmp_path, role)
    try:
        yield made
    finally:
        made.close()


def _make(config: pytest.Config, directory: Path, role: str) -> Bench:
    board: str = config.getoption("--board")
    if board == "virtual":
        from virtual_bench import VirtualBench

        return VirtualBench(directory, role)
    from rig import Rig
    from serial_bench import SerialBench

    port = board.removeprefix("serial:")
    parts = [config.getoption(name) for name in ("--probe", "--bus", "--power", "--bus-parity")]
    return SerialBench(Rig(port, *parts), role)
