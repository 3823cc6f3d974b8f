"""The technician's tools against a board's serial port: flash, monitor, maintenance, mpremote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial
from boards import KEY, NODE_ID, QUICK
from held_board import HeldBoard
from kerb_check import flash
from kerb_tools import board_tree, maintenance, monitor, provision
from kerb_wire import provisioning

_TOOL_S = 30
SETTINGS = QUICK | {"console_window_ms": 500, "watchdog_ms": 3000}


@pytest.fixture
def blank(tmp_path: Path) -> Iterator[HeldBoard]:
    """A board with a stock image and nothing on its flash."""
    with HeldBoard(tmp_path / "board") as board:
        yield board


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "board"
    board_tree.write(folder)
    return folder


@pytest.fixture
def node(tmp_path: Path, tree: Path) -> Iterator[HeldBoard]:
    """A bin node with the application on its flash."""
    identity = provisioning.pack(0, 0, NODE_ID, KEY, b"north")
    with HeldBoard(tmp_path / "board", identity, settings=SETTINGS, tree=tree) as board:
        yield board


def start_tool(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tool(*arguments: str) -> str:
    """Run a tool to its end and return what it said."""
    answer = start_tool(*arguments)
    said, _ = answer.communicate(timeout=_TOOL_S)
    assert answer.returncode == 0, said
    return said


def on_line(process: subprocess.Popen[str], text: str, act: Callable[[], None]) -> str:
    """Act once the tool says `text`; return all that it says."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            act()
    assert process.wait(_TOOL_S) == 0, said
    return said


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TOOL_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def provisioned(tmp_path: Path) -> Path:
    pairs = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    common = ["--node-id", NODE_ID.hex(), "--role", "bin", "--site", "north"]
    assert provision.main([*common, "--out", str(tmp_path / "provisioned"), *pairs]) == 0
    return tmp_path / "provisioned" / "nodes" / NODE_ID.hex()


def records(held: HeldBoard) -> list[dict[str, object]]:
    return [r.content for r in flash.read(held.spec.flash_path, NODE_ID.hex()).readings]


def test_a_blank_board_is_flashed_and_runs_from_its_flash(
    blank: HeldBoard, tmp_path: Path
) -> None:
    """The whole way: mpremote copies, the board restarts, keeps a record, advertises."""
    blank.power_on()
    blank.wait_for("prompt")
    folder = str(provisioned(tmp_path))
    said = tool("kerb_tools", "flash", "--port", blank.port, "--node", folder, "--json")
    report = json.loads(said.splitlines()[-1])
    assert (report["node"], report["files"] > 30) == (folder, True)
    blank.wait_for("sleeping")
    assert blank.world.boots[-1] == "hard"  # the restart at the end of kerb flash
    assert records(blank)[0]["event"] == "boot"
    assert 1 in blank.world.adverts
    in_nvs = bytes.fromhex(json.loads(blank.spec.nvs_path.read_text())["kerb"]["identity"])
    assert in_nvs == (Path(folder) / "identity.bin").read_bytes()


def test_an_old_tree_is_replaced_and_the_log_stays(node: HeldBoard) -> None:
    """Flashing in service: maintenance, a stale file that would win, a second boot's record."""
    node.power_on()
    node.wait_for("sleeping")
    process = start_tool("kerb_tools", "monitor", "--port", node.port, "--maintenance", "--for=0")
    said = on_line(process, "press its reset button now", node.reset)
    assert "kerbstone: maintenance" in said
    stale = "f = open('/kerb_node/app.py', 'w'); f.write('stale'); f.close()"
    tool("mpremote", "connect", node.port, "exec", stale)
    said = tool("kerb_tools", "flash", "--port", node.port)
    assert "removed /kerb_node/app.py" in said
    assert re.search(r"Up to date: \S*/kerb_node/app.mpy", said)
    node.wait_for("sleeping")
    assert [r["boot_no"] for r in records(node) if r["event"] == "boot"] == [1, 2]


def test_monitor_shows_a_whole_start(node: HeldBoard) -> None:
    process = start_tool("kerb_tools", "monitor", "--port", node.port, "--for=2", "--json")
    wait_until(lambda: node.board.serial_port_is_open)
    node.power_on()
    said, _ = process.communicate(timeout=_TOOL_S)
    lines = [json.loads(line)["line"] for line in said.splitlines()]
    assert any("POWERON_RESET" in line for line in lines), said
    assert any("press m or Enter within" in line for line in lines)
    assert not any("maintenance;" in line for line in lines)


def test_maintenance_that_does_not_come_is_said(
    node: HeldBoard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(maintenance, "RESET_BY_HAND_S", 0.3)
    assert monitor.main(["--port", node.port, "--maintenance"]) == 1
    assert "no prompt came" in capsys.readouterr().err


def test_ctrl_c_leaves_a_watchdog_behind(node: HeldBoard) -> None:
    """Why the tools reset a board first: an interrupted application is restarted under them."""
    node.power_on()
    with serial.Serial(node.port, 115200, timeout=1) as port:
        # The first advert: the watchdog has been started by then.
        wait_until(lambda: 1 in node.world.adverts)
        port.write(b"\x03")
        node.wait_for("prompt")
        assert b"KeyboardInterrupt" in port.read_until(b">>> ")
        port.write(b"\x01\x04")  # a soft reset does not stop the watchdog either
    node.wait_for("sleeping")
    assert "watchdog" in node.world.boots


def test_raw_repl_is_the_ports(blank: HeldBoard) -> None:
    """Framing, raw-paste windows and the refusal, as the documentation has them."""
    blank.power_on()
    blank.wait_for("prompt")
    with serial.Serial(blank.port, 115200, timeout=2) as port:
        port.write(b"\r\x03\x01")
        assert port.read_until(b"raw REPL; CTRL-B to exit\r\n>").endswith(b"exit\r\n>")
        port.write(b"print(6 * 7)\x04")
        assert port.read_until(b"\x04>") == b"OK42\r\n\x04\x04>"
        port.write(b"1 / 0\x04")
        answer = port.read_until(b"\x04>")
        assert answer.startswith(b"OK\x04Traceback")
        assert b"ZeroDivisionError" in answer
        port.write(b"\x05B\x01")
        assert port.read(3) == b"R\x00>"
        port.write(b"\x05A\x01")
        assert port.read(5) == b"R\x01\x80\x00\x01"
        port.write(b"#" * 128)
        assert port.read(1) == b"\x01"  # the next window
        port.write(b"\nprint('pasted')\x04")
        assert port.read_until(b"\x04>") == b"\x04pasted\r\n\x04\x04>"
        port.write(b"print('runs')\nwhile True: pass\x04")
        assert port.read_until(b"runs\r\n").startswith(b"OK")
        port.write(b"\x03")
        assert b"KeyboardInterrupt" in port.read_until(b"\x04>")
        port.write(b"\x04")
        assert port.read_until(b"exit\r\n>").startswith(b"OK\r\nMPY: soft reboot\r\n")
