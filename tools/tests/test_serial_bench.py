"""hil_tests through a serial port: the bench for real boards, against a virtual one's pty.

Rule: the suite runs as a person runs it, in a pytest of its own, and reaches the board by its
port, its bus and its supply's command only.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import KEY, NODE_ID
from held_board import HeldBoard
from kerb_sim.bus.wire import Bus
from kerb_tools import board_tree
from kerb_wire import provisioning
from power_switch import PowerSwitch

_TOP = Path(__file__).resolve().parents[2]
_SUITE_S = 60
_BAUD = 115200
_SOME = "deep_sleep or command_sets or blind_zone"  # the others take the same ways, and a minute


def hil(*options: str) -> str:
    """Run hil_tests with these options and return the report; the suite must not fail."""
    command = [sys.executable, "-m", "pytest", "hil_tests", "-rs", "-vv", "-p", "no:cacheprovider"]
    answer = subprocess.run(
        [*command, *options], cwd=_TOP, capture_output=True, text=True, timeout=_SUITE_S
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "board"
    board_tree.write(folder)
    return folder


@pytest.fixture
def rig(tmp_path: Path, tree: Path) -> Iterator[tuple[HeldBoard, list[str]]]:
    """A board with the application on its flash, a bus, a switch; the options that name them."""
    bus = Bus(_BAUD, seed=1)
    client = bus.attach("client")
    identity = provisioning.pack(0, 0, NODE_ID, KEY, b"test")
    parts = {"uart": bus.attach("lamp"), "driver_enable_pin": 4, "tree": tree}

    async def start_bus() -> None:
        bus.start()

    async def stop_bus() -> None:
        bus.close()

    with HeldBoard(tmp_path / "board", identity, **parts) as held:
        held.run(start_bus())
        with PowerSwitch(tmp_path / "switch", held.turn) as switch:
            yield (
                held,
                [
                    f"--board=serial:{held.port}",
                    f"--bus={client}",
                    "--bus-parity=N",
                    f"--power={switch.command}",
                ],
            )
        held.run(stop_bus())


def outcome(report: str, test: str) -> str:
    found = re.search(rf"::{test}\S* (PASSED|SKIPPED|FAILED)", report)
    return found[1] if found else "not run"


def test_the_suite_runs_through_a_serial_port(rig: tuple[HeldBoard, list[str]]) -> None:
    _, options = rig
    report = hil(*options, "-k", _SOME)
    assert outcome(report, "test_deep_sleep_keeps_the_count") == "PASSED", report
    assert outcome(report, "test_a_command_sets_the_level_once") == "PASSED", report
    assert outcome(report, "test_blind_zone_is_no_distance") == "SKIPPED"
    assert "--probe=PORT" in report


def test_a_board_in_use_is_left_alone(rig: tuple[HeldBoard, list[str]]) -> None:
    held, options = rig
    north = provisioning.pack(0, 0, NODE_ID, KEY, b"north")
    held.spec.nvs_path.write_text(f'{{"kerb": {{"identity": "{north.hex()}"}}}}')
    report = hil(*options, "-k", "test_deep_sleep")
    assert "is provisioned for site 'north'" in report
    assert north.hex() in held.spec.nvs_path.read_text()


def test_without_a_board_the_suite_says_how_to_attach_one() -> None:
    report = hil("--board=serial:/dev/no-such-port", "-k", "test_boot or test_modbus_identity")
    assert "no board at /dev/no-such-port: attach one" in report
    assert "passed" not in report.splitlines()[-1]
