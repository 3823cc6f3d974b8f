"""The real gateway with a simulated outside: its composition root, its parts, its order of ending.

Rule: nothing of the gateway is replaced but what touches the machine; what is put into the place
of something stands in this file or in seams.py.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from kerb_gateway.app import Gateway
from kerb_gateway.config import Config, Secrets
from kerb_gateway.group import Group
from kerb_gateway.store.database import Store

from kerb_tools.simulate.air import Adapter
from kerb_tools.simulate.client import Client
from kerb_tools.simulate.disk import Ballast
from kerb_tools.simulate.trace import Trace

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House


class Logger:
    """What the gateway logs becomes part of the trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def info(self, event: str, **fields: Any) -> None:
        """Note one line."""
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        self._trace.note(f"log {event} {text}")

    warning = info


class SimulatedGateway(Gateway):
    """One life of the process."""

    def __init__(self, house: House, config: Config, secrets: Secrets, random: Random) -> None:
        super().__init__(config, secrets, Logger(house.trace))
        self._clock = house.machine  # type: ignore[assignment]
        self._house = house
        self._random = random
        self.group: Group | None = None

    async def live(self) -> None:
        """Run until stopped; Crash ends it at any point."""
        disk = self._house.disk
        store = Store(Path("simulated.sqlite"), connect=disk.reopen)
        await store.open()
        disk.watch()
        try:
            await self._with_store(store)
        finally:
            await store.close()

    def ask_to_stop(self) -> None:
        """What SIGTERM does."""
        self._stop.set()

    async def _group(self, *parts: Any) -> Any:
        self.group = await super()._group(*parts)
        return self.group

    def _radios(self) -> Any:
        names = self._config.ble.adapters
        self._house.adapters = [Adapter(self._house, name, self._random) for name in names]
        return self._house.adapters

    def _uplink(self, topics: Any) -> Any:
        self._house.client = Client(self._house, self._random)
        return self._house.client

    def _ballast(self) -> Any:
        return Ballast(self._house)
