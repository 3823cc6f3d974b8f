"""Tables in docs/ and the code say the same; links lead somewhere; nothing private is named."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from kerb_gateway.config import Config
from pydantic import BaseModel
from pydantic.fields import FieldInfo

TOP = Path(__file__).resolve().parents[2]


def test_generated_tables_are_as_the_code_says() -> None:
    answer = subprocess.run(
        [sys.executable, str(TOP / "tools" / "generate_docs.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


_ROW = re.compile(r"\| (?:\*\*\[+([a-z_.]+)\]+\*\* )?([a-z_]+(?:, [a-z_]+)*) \| (.*?) \| (.*?) \|")


def _part(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the model of a table of the configuration: a part, an optional one, or a list's."""
    annotation = model.model_fields[name].annotation
    inner = [annotation, *get_args(annotation)]
    return next(one for one in inner if isinstance(one, type) and issubclass(one, BaseModel))


def test_the_configurations_table_is_as_the_models_say() -> None:
    """Every key once, its default, and the bounds of those that are numbers."""
    parts = {name: _part(Config, name) for name in Config.model_fields}
    parts["nodes.geometry"] = _part(parts["nodes"], "geometry")
    section, said = "", []
    for line in (TOP / "docs" / "configuration.md").read_text().splitlines():
        if (row := _ROW.match(line)) is None:
            continue
        section = row[1] or section
        keys, defaults = row[2].split(", "), row[3].split(", ")
        said += [(section, key) for key in keys]
        for key, default in zip(keys, defaults, strict=False):
            if len(keys) == len(defaults):
                _compare(parts[section].model_fields[key], default)
        if len(keys) == 1:
            bounds = _bounds(parts[section].model_fields[keys[0]])
            assert bounds <= {int(number) for number in re.findall(r"\d+", row[4])}, line
    known = {(name, key) for name, part in parts.items() for key in part.model_fields}
    assert sorted(said) == sorted(known - {("nodes", "geometry")})


def _compare(field: FieldInfo, default: str) -> None:
    if field.is_required():
        assert default == "none"
        return
    value = field.get_default(call_default_factory=True)
    if value is not None:  # None is said in words
        assert json.loads(default) == value


def _bounds(field: FieldInfo) -> set[int]:
    names = ("ge", "gt", "le", "lt")
    found = [getattr(one, name, None) for one in field.metadata for name in names]
    return {int(one) for one in found if one is not None}


@pytest.mark.parametrize("script", ["mutants", "planted"])
def test_a_name_that_nothing_has_is_a_mistake(script: str) -> None:
    """Else it would end with "0 passed, 0 failed", and green."""
    command = [sys.executable, str(TOP / "tools" / f"{script}.py"), "nonsense"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "no name contains 'nonsense'" in answer.stderr


def test_every_mutant_finds_its_text() -> None:
    """`make mutants` takes minutes; that a mutant can be applied at all is seen here."""
    replacements = [*_script("mutants").MUTANTS, *_script("planted").PLANTED]
    counts = {one.name: (TOP / one.file).read_text().count(one.old) for one in replacements}
    assert {name: count for name, count in counts.items() if count != 1} == {}
    for one in replacements:  # what cannot be read at all would be killed by any test
        broken = (TOP / one.file).read_text().replace(one.old, one.new)
        if one.file.endswith(".py"):
            compile(broken, one.name, "exec")


def _script(name: str) -> Any:
    """Return a script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, TOP / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def pins_of(path: Path) -> dict[str, object]:
    """Return the constants that a file assigns, one by one or as one tuple."""
    pins: dict[str, object] = {}
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Assign):
            continue
        targets, values = list(node.targets), [node.value]
        if isinstance(targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            targets, values = targets[0].elts, node.value.elts
        for target, value in zip(targets, values, strict=True):
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                pins[target.id] = value.value
    return pins


def test_pins_are_as_the_board_file_says() -> None:
    pins = pins_of(TOP / "firmware" / "kerb_node" / "board.py")
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


def test_the_probe_is_wired_as_its_program_says() -> None:
    board = pins_of(TOP / "firmware" / "kerb_node" / "board.py")
    probe = pins_of(TOP / "hil_tests" / "probe" / "probe.py")
    table = re.findall(
        r"^\| (\d+)(?: \(DAC\))? \| (\d+)?[ \w]*? ?(\w+) \|",
        (TOP / "docs/testing.md").read_text(),
        re.M,
    )
    names = {
        "trigger": ("TRIGGER", "BIN_TRIGGER"),
        "echo": ("ECHO", "BIN_ECHO"),
        "thermistor": ("AIR", "BIN_THERMISTOR"),
        "tilt": ("TILT", "BIN_TILT"),
        "service": ("SERVICE", "SERVICE"),
        "PWM": ("LAMP", "LAMP_PWM"),
        "load": ("LOAD", "LAMP_LOAD"),
        "supply": ("SUPPLY", ""),
    }
    assert {name: (int(own), int(other or 0)) for own, other, name in table} == {
        name: (probe[own], board.get(other, 0)) for name, (own, other) in names.items()
    }


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
