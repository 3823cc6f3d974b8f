"""What the fuzzer once found is found no more: each vector, on both interpreters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kerb_tools.fuzz.differential import Micro, differences
from kerb_tools.fuzz.findings import read
from kerb_tools.fuzz.guard import Guard
from kerb_tools.fuzz.registry import TARGETS
from kerb_tools.interpreter import InterpreterError, find

VECTORS = read(Path(__file__).parent / "vectors" / "regressions.txt")


def test_every_vector_names_a_target() -> None:
    assert {one.target for one in VECTORS} <= set(TARGETS)


@pytest.mark.parametrize("name", sorted({one.target for one in VECTORS}))
def test_on_cpython(name: str) -> None:
    guard = Guard(TARGETS[name], TARGETS[name].make())
    for one in VECTORS:
        if one.target == name:
            finding = guard.run(one.data).finding
            assert finding is None, f"{one.data.hex()}\n{finding.detail}"


def test_on_both_interpreters_alike() -> None:
    try:
        program = find(require_built=bool(os.environ.get("CI"))).path
    except InterpreterError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    both = [one for one in VECTORS if TARGETS[one.target].both]
    assert both
    assert [one.detail for one in differences(Micro(program), both)] == []
