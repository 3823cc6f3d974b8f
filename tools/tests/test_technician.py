"""The technician's tools: provision, board tree, flash against a mock bootloader, monitor."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from esp32_mock_bootloader.api import MockHandle
from kerb_tools import board_tree, cli, flash, maintenance, monitor, provision
from kerb_wire import provisioning

Capture = pytest.CaptureFixture[str]


def provisioned(tmp_path: Path, *more: str) -> int:
    common = ["--node-id", "A4:CF:12:00:00:07", "--site", "north", "--out", str(tmp_path)]
    return provision.main([*common, *more])


def test_provision_makes_the_blob_and_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provisioned(tmp_path, "--role", "lamp", "--unit", "9", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    row = provisioning.unpack((Path(answer["folder"]) / "identity.bin").read_bytes())
    key_file = tmp_path / "keys" / "a4cf12000007.key"
    assert row.unit == 9
    assert row.root_key.hex() == key_file.read_text().strip()
    assert row.root_key.hex() not in answer["gateway_entry"]
    assert stat.S_IMODE(os.stat(key_file).st_mode) == 0o600
    assert provisioned(tmp_path, "--role", "lamp", "--unit", "9") == 2  # never a second key


@pytest.mark.parametrize(
    "more",
    [
        ["--role", "lamp"],
        ["--role", "bin", "--set", "pings"],
        ["--role", "bin", "--set", "pings=\u00b2"],
        ["--role", "bin", "--set", "pings=99"],
        ["--role", "bin", "--set", "wake_intervall_ms=900000"],
        ["--role", "bin", "--set", "log_segments=64", "--set", "log_rows=1024"],
        ["--role", "bin", "--site", "x" * 30],
        ["--role", "lamp", "--unit", "9", "--bus", 'a"\nb'],
    ],
)
def test_provision_names_the_mistake(
    tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert provisioned(tmp_path, *more) == 2
    assert "kerb provision:" in capsys.readouterr().err


def test_the_board_tree_is_complete(tmp_path: Path) -> None:
    files = {str(path.relative_to(tmp_path)) for path in board_tree.write(tmp_path)}
    assert {"boot.py", "main.py", "kerb_node/app.mpy", "kerb_wire/frame.mpy"} <= files
    assert not any("test" in name for name in files)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.bin"
    path.write_bytes(bytes([0xE9, 1, 2, 0x20]) + bytes(20) + os.urandom(8168))
    return path


def flashed(mock: MockHandle, image: Path, *more: str) -> subprocess.CompletedProcess[str]:
    common = ["--port", mock.url(), "--image", str(image), "--before", "no-reset"]
    return subprocess.run(
        [sys.executable, "-m", "kerb_tools", "flash", *common, *more],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_flash_writes_the_image_through_the_real_protocol(image: Path) -> None:
    with MockHandle("esp32") as mock:
        answer = flashed(mock, image, "--image-only", "--json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Hash of data verified" in answer.stdout
    assert "erased" in answer.stdout
    done = json.loads(answer.stdout.splitlines()[-1])
    assert (done["image"], done["node"], done["files"]) == (str(image), None, 0)


def test_an_image_that_would_leave_a_board_without_identity_is_refused(image: Path) -> None:
    """Everything is erased with an image, so without --node a node in use would be nobody."""
    with MockHandle("esp32") as mock:
        answer = flashed(mock, image, "--json")
    assert answer.returncode == 2
    for word in ("erases", "--node", "--image-only", "log"):
        assert word in answer.stderr
    assert not answer.stdout, "the board was touched"


def test_an_image_with_a_node_is_written(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    assert provisioned(tmp_path, "--role", "bin") == 0
    node = tmp_path / "nodes" / "a4cf12000007"
    for wait in ("RESET_BY_HAND_S", "_BOOT_S"):
        monkeypatch.setattr(maintenance, wait, 0.1)
    with MockHandle("esp32") as mock:
        common = ["--port", mock.url(), "--image", str(image), "--before", "no-reset"]
        assert flash.main([*common, "--node", str(node)]) == 2
    said = capfd.readouterr()
    assert "Hash of data verified" in said.out
    assert "did not come to its prompt" in said.err  # the mock is a bootloader and nothing else


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"hello", "not an ESP32 image"),
        (b"\xe9\x01\x02\x20" + bytes(8) + b"\x09\x00", "another chip (id 9)"),  # an ESP32-S3
    ],
)
def test_flash_refuses_the_wrong_image(
    content: bytes, complaint: str, tmp_path: Path, capsys: Capture
) -> None:
    wrong = tmp_path / "wrong.bin"
    wrong.write_bytes(content)
    assert flash.main(["--port", "/dev/null", "--image", str(wrong)]) == 2
    assert complaint in capsys.readouterr().err


def test_monitor_shows_lines(capsys: Capture) -> None:
    master, slave = os.openpty()
    timer = threading.Timer(0.3, lambda: os.write(master, b"kerbstone: hello\n"))
    timer.start()
    assert monitor.main(["--port", os.ttyname(slave), "--for", "1", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["line"] for line in lines] == ["kerbstone: hello"]
    os.close(master)
    os.close(slave)


def test_monitor_says_when_there_is_no_port(capsys: Capture) -> None:
    assert monitor.main(["--port", "/dev/no-such-port"]) == 2
    assert "/dev/no-such-port" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli._COMMANDS))
def test_every_command_has_help(name: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "kerb_tools", name, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0
    assert f"kerb {name}" in answer.stdout
