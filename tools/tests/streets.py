"""Runs whole streets for the end-to-end tests, each ending with the set checker."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from kerb_check.verdict import Verdict, judge
from kerb_sim import plan
from kerb_sim.broker import find_mosquitto
from kerb_sim.street import TIME_SCALE, Street
from kerb_tools.demo.run import Demo
from kerb_tools.interpreter import InterpreterError, find
from kerb_tools.system_parts import find_dbus_daemon

SEED = 11
_NEVER_S = 1e6


def need(what: str, found: Path | None) -> Path:
    """Return what was found; without it skip, or fail in CI."""
    if found is None:
        message = f"{what} is missing: make setup installs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def interpreter() -> Path:
    """Return the host MicroPython; in CI only the built variant will do."""
    try:
        return find(require_built=bool(os.environ.get("CI"))).path
    except InterpreterError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def calm(duration_s: float, **changes: object) -> plan.Plan:
    """Return a plan in which adverts are lost and nothing else happens, but for `changes`."""
    quiet = dataclasses.replace(
        plan.make(SEED, 1, duration_s),
        power_cut_s=_NEVER_S,
        bus_silence_s=_NEVER_S,
        dead_unit_s=_NEVER_S,
        broker_restart_s=_NEVER_S,
        replays=0,
        lamp_fault_s=_NEVER_S,
    )
    return dataclasses.replace(quiet, **changes)  # type: ignore[arg-type]


def run_street(
    tmp_path: Path,
    *,
    bins: int,
    lamps: int,
    duration_s: float,
    during: Callable[[Demo], Awaitable[None]] | None = None,
    faults: plan.Plan | None = None,
    adapters: tuple[str, ...] = ("hci0",),
    scale: float = TIME_SCALE,
    bin_settings: dict[str, int] | None = None,
    commit_s: float | None = None,
    gateways: int = 1,
) -> Verdict:
    """Run a street with its gateways and return the checker's verdict over it."""
    street = Street(
        tmp_path / "run",
        bins=bins,
        lamps=lamps,
        seed=SEED,
        duration_s=duration_s,
        interpreter=interpreter(),
        dbus_daemon=need("dbus-daemon", find_dbus_daemon()),
        faults=faults or calm(duration_s),
        adapters=adapters,
        scale=scale,
        bin_settings=bin_settings,
        commit_s=commit_s,
        gateways=gateways,
    )
    need("mosquitto", find_mosquitto())
    asyncio.run(Demo(street, duration_s, SEED, lambda line: None, during).run())
    return judge(tmp_path / "run")


def assert_accounted(verdict: Verdict, *, lost_by_broker: bool = False) -> None:
    """Every reading is accounted for and every command confirmed.

    lost_by_broker: whether the platform may have had to ask for what the broker lost; else that
    could hide what the gateway itself gave up.
    """
    assert not verdict.broken
    assert verdict.figures["unaccounted"] == 0, verdict.findings
    assert verdict.figures["commands_confirmed"] == verdict.figures["commands_sent"]
    assert not verdict.findings
    assert lost_by_broker == (verdict.figures["lost_by_broker_and_replayed"] > 0)
