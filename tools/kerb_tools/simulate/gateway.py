"""The real gateway with a simulated outside: its composition root, its parts, its order of ending.

Rule: nothing of the gateway is replaced but what touches the machine; what is put into the place
of something stands in this file or in seams.py.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from kerb_gateway.app import Gateway
from kerb_gateway.clock import Moment
from kerb_gateway.config import Config, Secrets
from kerb_gateway.store.database import Store

from kerb_tools.simulate.air import Adapter
from kerb_tools.simulate.broker import Client
from kerb_tools.simulate.disk import Ballast
from kerb_tools.simulate.timeline import Timeline
from kerb_tools.simulate.trace import Trace

if TYPE_CHECKING:
    from kerb_tools.simulate.street import Street

_WALL_MS = 1_800_000_000_000
_BOOTED_MS = 20_000  # a machine has lived that long before its gateway starts


class Machine:
    """The clocks of the gateway's machine; time anchors will want more of it."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._boots = 0
        self.boot()

    def boot(self) -> None:
        """Start anew: another boot_id, and CLOCK_BOOTTIME from zero."""
        self._boots += 1
        self.boot_id = f"boot-{self._boots}"
        self._booted_s = self._timeline.now_s

    def boottime_ms(self) -> int:
        return int((self._timeline.now_s - self._booted_s) * 1000) + _BOOTED_MS

    def now(self) -> Moment:
        wall_ms = _WALL_MS + int(self._timeline.now_s * 1000)
        return Moment(self.boot_id, self.boottime_ms(), wall_ms, "ntp")


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

    def __init__(self, street: Street, config: Config, secrets: Secrets, random: Random) -> None:
        super().__init__(config, secrets, Logger(street.trace))
        self._clock = street.machine  # type: ignore[assignment]
        self._street = street
        self._random = random

    async def live(self) -> None:
        """Run until stopped; Crash ends it at any point."""
        disk = self._street.disk
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

    def _radios(self) -> Any:
        names = self._config.ble.adapters
        self._street.air.adapters = [Adapter(self._street, name, self._random) for name in names]
        return self._street.air.adapters

    def _uplink(self, topics: Any) -> Any:
        self._street.broker.client = Client(self._street, self._random)
        return self._street.broker.client

    def _ballast(self) -> Any:
        return Ballast(self._street)
