"""The street's private bus starts wherever a run's folder lies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kerb_sim.air.dbus_daemon import DbusDaemon
from kerb_tools.system_parts import find_dbus_daemon
from streets import need


@pytest.mark.parametrize("name_bytes", [99, 100, 107])
def test_a_bus_starts_in_a_directory_with_a_long_name(tmp_path: Path, name_bytes: int) -> None:
    """dbus-daemon takes 99 bytes for its socket, fewer than unix(7) has."""
    program = need("dbus-daemon", find_dbus_daemon())
    directory = tmp_path / ("d" * (name_bytes - len(f"{tmp_path}//bus")))
    assert len(str(directory / "bus")) == name_bytes

    async def story() -> None:
        daemon = await DbusDaemon.start(program, directory)
        await daemon.stop()

    asyncio.run(story())
