"""Tables in docs/ and the code say the same; links lead somewhere; nothing private is named."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_generated_tables_are_as_the_code_says() -> None:
    answer = subprocess.run(
        [sys.executable, str(TOP / "tools" / "generate_docs.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_mutant_finds_its_text() -> None:
    """`make mutants` takes minutes; that a mutant can be applied at all is seen here."""
    spec = importlib.util.spec_from_file_location("mutants", TOP / "tools" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    counts = {
        mutant.name: (TOP / mutant.file).read_text().count(mutant.old) for mutant in module.MUTANTS
    }
    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_pins_are_as_the_board_file_says() -> None:
    text = (TOP / "firmware" / "kerb_node" / "board.py").read_text()
    pins = {
        target.id: node.value.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    table = dict(
        re.findall(r"^\| ([\w -]+?) \| (\d+) \|", (TOP / "docs/hardware.md").read_text(), re.M)
    )
    names = {
        "trigger": "BIN_TRIGGER",
        "echo": "BIN_ECHO",
        "thermistor": "BIN_THERMISTOR",
        "battery": "BIN_BATTERY",
        "tilt": "BIN_TILT",
        "service": "SERVICE",
        "PWM": "LAMP_PWM",
        "RS-485 TX": "LAMP_TX",
        "RS-485 RX": "LAMP_RX",
        "RS-485 DE": "LAMP_DE",
        "load sense": "LAMP_LOAD",
        "supply sense": "LAMP_SUPPLY",
    }
    assert {name: int(table[name]) for name in names} == {n: pins[p] for n, p in names.items()}


def test_the_disk_table_has_the_defaults_of_the_configuration() -> None:
    from kerb_gateway.config import StorePart

    text = (TOP / "docs/operations.md").read_text()
    table = dict(re.findall(r"^\| (\w+) \| (\d+) \| [a-z]", text, re.M))
    fields = StorePart.model_fields
    keys = ("commit_interval_s", "ballast_mb", "keep_days", "max_mb")
    assert {key: float(table[key]) for key in keys} == {key: fields[key].default for key in keys}


def test_the_traps_are_the_tests_and_the_other_way_round() -> None:
    text = (TOP / "docs/testing.md").read_text().split("## Traps")[1].split("\n## ")[0]
    listed = re.findall(r"\| (\S+\.py)::(\w+) \|", text)
    assert len(listed) == len(set(listed)) == text.count("\n| ") - 1
    for file, name in listed:
        assert f"def {name}(" in (TOP / file).read_text(), f"{file}::{name}"
    for path in TOP.glob("*/tests/test_traps_*.py"):
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M):
            assert (str(path.relative_to(TOP)), name) in listed, name


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in [TOP / "README.md", *(TOP / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_is_in_the_docs() -> None:
    from kerb_tools.cli import _COMMANDS

    text = "".join(p.read_text() for p in [TOP / "README.md", TOP / "CHANGELOG.md"])
    text += "".join(page.read_text() for page in (TOP / "docs").glob("*.md"))
    for name in _COMMANDS:
        assert f"kerb {name}" in text, name
