"""What stands on the table beside a real board: its port, a probe, a bus adapter, a supply.

Rule: a part that is missing skips the tests that need it, with the option that names it.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_WHERE = "docs/testing.md, 'A rig for real boards'"
_SUPPLY_S = 20


@dataclass(frozen=True)
class Rig:
    """The options of a run; None: this part is not there."""

    board: str
    probe: str | None = None
    bus: str | None = None
    power: str | None = None
    bus_parity: str = "E"

    def check(self, role: str) -> None:
        """Skip unless there are a board and, for a lamp, a bus."""
        if not Path(self.board).exists():
            pytest.skip(
                f"no board at {self.board}: attach one and give --board=serial:/dev/ttyUSBn"
            )
        if role == "lamp" and self.bus is None:
            self.lacks("a bus", "--bus=PORT, an RS-485 adapter on the lamp's bus")

    def lacks(self, part: str, option: str) -> None:
        """Skip the test that asks for a part which this rig does not have."""
        pytest.skip(f"the rig has not got {part}: {option} ({_WHERE})")

    def switch(self, word: str) -> None:
        """Call the supply's command with on, off or reset."""
        command = [*shlex.split(self.power or ""), word]
        subprocess.run(command, check=True, timeout=_SUPPLY_S)
