"""The fuzzer itself: a little of every target, and that it finds what is planted."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from kerb_tools.fuzz import cli, own_engine
from kerb_tools.fuzz.both.wire_targets import Outcomes, text_of
from kerb_tools.fuzz.differential import Micro, differences
from kerb_tools.fuzz.findings import Vector, promote, read
from kerb_tools.fuzz.guard import Guard, shrink
from kerb_tools.fuzz.mutate import Mutator
from kerb_tools.fuzz.registry import TARGETS
from kerb_tools.fuzz.session import Session
from kerb_tools.fuzz.target import Target
from streets import interpreter

_INPUTS_BOTH = 250
_INPUTS_HOST = 25
_SEED = 6


def inputs(target: Target, number: int) -> list[bytes]:
    """Return the seeds of a target and `number` changes of them, always the same."""
    rng = random.Random(f"{_SEED} {target.name}")
    mutator = Mutator(
        rng, tokens=target.tokens, repair=target.repair, most_bytes=target.most_bytes
    )
    seeds = target.seeds()
    return seeds + [mutator.change(rng.choice(seeds), rng.choice(seeds)) for _ in range(number)]


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_little_of_every_target(name: str) -> None:
    target = TARGETS[name]
    guard = Guard(target, target.make())
    for data in inputs(target, _INPUTS_BOTH if target.both else _INPUTS_HOST):
        finding = guard.run(data).finding
        assert finding is None, f"{name} {data.hex()}\n{finding.detail}"


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name].both])
def test_seeds_reach_what_they_are_for(name: str) -> None:
    """A seed that its own target refuses tests the first `if` and nothing else."""
    guard = Guard(TARGETS[name], TARGETS[name].make())
    if name not in ("sealed", "unseal", "proof"):  # a stranger's bytes are never taken there
        assert "taken" in {guard.run(data).word for data in TARGETS[name].seeds()}


def test_both_interpreters_say_the_same() -> None:
    every = [
        Vector(name, data)
        for name, target in TARGETS.items()
        if target.both
        for data in inputs(target, 60)
    ]
    found = list(differences(Micro(interpreter()), every))
    assert [(one.signature, one.data.hex(), one.detail) for one in found] == []


# --- that it can find anything at all ---


def _deep(data: bytes) -> object:
    if data[:1] != b"K":
        return None
    if data[1:2] != b"\xff":
        return None
    if len(data) <= 40:
        return None
    raise KeyError("found")


class UntilFound(Session):
    """A session that is over with its first finding."""

    @property
    def over(self) -> bool:
        return bool(self.findings) or super().over


def planted(run: object, **more: object) -> Target:
    return Target(
        "planted", "", lambda: run, lambda: [b"abcd"], traced=("tests.test_fuzz",), **more  # type: ignore[arg-type,return-value]
    )  # fmt: skip


def test_the_longest_inputs_fit_a_node_s_heap_among_others() -> None:
    """As many pieces as an input can have, between inputs that leave their crumbs in the heap."""
    longest = [
        Vector(name, (bytes([1, mode]) * 600)[: TARGETS[name].most_bytes])
        for name in ("conversation", "node_door", "node_session", "node_bus")
        for mode in range(4)
    ]
    crumbs = [Vector("message", data) for data in inputs(TARGETS["message"], 0)[:4]]
    every = [one for crumb in crumbs for one in (crumb, *longest)]
    assert list(differences(Micro(interpreter()), every)) == []


def test_of_many_outcomes_the_last_one_counts() -> None:
    one, other = Outcomes(), Outcomes()
    for number in range(600):
        one.append(number)
        other.append(number if number < 599 else "else")
    assert text_of(one) != text_of(other)
    assert len(text_of(one)) < 100


def test_the_loop_finds_its_way_line_by_line(tmp_path: Path) -> None:
    own_engine.run(UntilFound(planted(_deep), _deep, tmp_path, 60), 1)
    (path,) = (tmp_path / "findings").iterdir()
    (vector,) = read(path)
    assert vector.data[:2] == b"K\xff"
    assert len(vector.data) == 41  # shrunk to the least that does it
    assert [one.data for one in promote(tmp_path, tmp_path / "vectors.txt")] == [vector.data]
    assert read(tmp_path / "vectors.txt") == [vector]
    assert promote(tmp_path, tmp_path / "vectors.txt") == []


def _endless(data: bytes) -> object:
    number = 0
    while True:
        try:
            number += len(data)
        except Exception:  # noqa: BLE001  # broad as a target's own: the alarm gets through that
            number = 0


def test_a_hang_is_found() -> None:
    guard = Guard(planted(_endless), _endless, cpu_s=0.1)
    finding = guard.run(b"x").finding
    assert finding is not None
    assert finding.kind == "hang"
    assert shrink(guard, finding) is finding


_GREEDY = """
from kerb_tools.fuzz.guard import Guard, limit_memory
from kerb_tools.fuzz.target import Target
take_all = lambda data: len(bytes(1 << 31))
limit_memory()
found = Guard(Target("planted", "", lambda: take_all, list), take_all).run(b"x").finding
print("nothing" if found is None else found.kind)
"""


def test_memory_is_bounded() -> None:
    """An input that wants 2 GB, under the worker's limit, in a process alone."""
    answer = subprocess.run(
        [sys.executable, "-c", _GREEDY],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.stdout == "memory\n", answer.stderr


def test_interpreters_that_disagree_or_die_are_found(tmp_path: Path) -> None:
    program = tmp_path / "micropython"
    program.write_text("#!/bin/sh\nread one; echo refused other\nexit 0\n")
    program.chmod(0o755)
    found = list(differences(Micro(program), [Vector("record", b""), Vector("record", b"x")]))
    assert [one.kind for one in found] == ["difference", "death"]


def test_the_command_runs_a_target_and_says_what_came_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kerb_tools", "fuzz", "--for", "2", "--target", "record"]
    answer = subprocess.run(
        [*command, "--json", "--no-micropython", "--engine", "own", "--dir", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    assert result["figures"]["executions"] > 100
    assert {bar["name"]: bar["value"] for bar in result["bars"]} | {"peak_rss_mb": 0} == {
        "crashes": 0, "hangs": 0, "memory": 0, "peak_rss_mb": 0,
    }  # fmt: skip
    assert result["targets"]["record"]["lines"] > 50


@pytest.mark.parametrize(
    "wrong", [["--target", "nothing"], ["--for", "0"], ["--replay", "no/such/file"]]
)
def test_a_person_s_mistake_is_a_sentence(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = cli.main(wrong)
    except SystemExit as end:  # argparse's own way
        status = int(str(end.code))
    assert status == 2
    assert wrong[1] in capsys.readouterr().err
