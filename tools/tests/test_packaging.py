"""The wheel holds our packages and nothing else; who may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PACKAGES = {"kerb_wire", "kerb_gateway", "kerb_tools", "kerb_check", "kerb_sim"}
HARDWARE = {"machine", "bluetooth", "network", "esp32"}
HARDWARE_FILES = {"board.py", "sleep.py", "supervisor.py", "identity.py"}
# paho has one door a broker: what a thread of its own may cost upstream, the one below may not.
DOORS = {
    "bleak": {"links/ble.py"},
    "pymodbus": {"links/modbus.py"},
    "paho": {"links/mqtt.py", "uplink/mqtt.py"},
}
WIRE_MAY_IMPORT = {"struct", "binascii", "collections", "kerb_wire"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_wheel_holds_our_packages_only(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(TOP),
        ],
        check=True,
        timeout=120,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert "kerb_gateway/service/kerb-gateway.service" in names
    assert "kerb_sim/port/machine.py" in names
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    answer = subprocess.run(
        [sys.executable, "-c", "import kerb_gateway; print(kerb_gateway.__file__)"],
        env={"PYTHONPATH": str(target), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert str(target) in answer.stdout


def test_hardware_is_touched_in_few_files_only() -> None:
    for path in (TOP / "firmware" / "kerb_node").rglob("*.py"):
        allowed = path.name in HARDWARE_FILES or path.parent.name in ("drivers", "links")
        assert allowed or not imports(path) & HARDWARE, path


def test_the_wire_imports_what_both_interpreters_have() -> None:
    for path in (TOP / "shared" / "kerb_wire").rglob("*.py"):
        assert imports(path) <= WIRE_MAY_IMPORT, path


def test_each_library_has_its_door_in_the_gateway() -> None:
    base = TOP / "gateway" / "kerb_gateway"
    for path in base.rglob("*.py"):
        for library, doors in DOORS.items():
            assert library not in imports(path) or str(path.relative_to(base)) in doors, path


def test_firmware_and_gateway_never_import_each_other() -> None:
    for path in (TOP / "firmware").rglob("kerb_node/**/*.py"):
        assert not imports(path) & (PACKAGES - {"kerb_wire"}), path
    for path in (TOP / "gateway" / "kerb_gateway").rglob("*.py"):
        assert "kerb_node" not in imports(path), path


def test_no_registry_and_no_index_in_the_locked_files() -> None:
    for path in TOP.glob("requirements*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert "--hash=sha256:" in text


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    import os
    import shutil

    import pytest

    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing: make setup installs it")
        pytest.skip("no systemd-analyze here (package systemd)")
    unit = TOP / "gateway" / "kerb_gateway" / "service" / "kerb-gateway.service"
    answer = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
