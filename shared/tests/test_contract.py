"""The contract tests under both interpreters, and hypothesis on the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import contract_bundle
import contract_crypto
import contract_fields
import contract_messages
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerb_tools.interpreter import InterpreterError, find
from kerb_wire.errors import WireError

HERE = Path(__file__).parent
SHARED = HERE.parent

_CASES = [
    getattr(module, name)
    for module in (contract_bundle, contract_crypto, contract_fields, contract_messages)
    for name in sorted(dir(module))
    if name.startswith("test_")
]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.__name__)
def test_on_cpython(case):
    case()


def _run(program: list[str], env: dict[str, str]) -> str:
    answer = subprocess.run(
        [*program, str(HERE / "run.py")], capture_output=True, text=True, timeout=200, env=env
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_on_micropython_with_the_same_outcomes():
    """Both interpreters say the same to the same bytes."""
    try:
        found = find(require_built=bool(os.environ.get("CI")))
    except InterpreterError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    paths = f"{HERE}:{SHARED}:.frozen"
    micro = _run([str(found.path), "-X", "heapsize=512wK"], os.environ | {"MICROPYPATH": paths})
    host = _run([sys.executable], os.environ | {"PYTHONPATH": str(SHARED)})
    assert micro.splitlines()[-2:] == host.splitlines()[-2:]
    assert " 0 failed" in micro


@settings(max_examples=2500, deadline=None, derandomize=True)
@given(st.binary(max_size=600))
def test_arbitrary_bytes(data):
    """20,000 decodings and more: nothing but kerb_wire's own errors comes out."""
    for decoder in contract_messages.DECODERS:
        try:
            decoder(data)
        except WireError as error:
            assert error.blame == "remote"
