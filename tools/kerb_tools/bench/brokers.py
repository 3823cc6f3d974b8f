"""The brokers of `kerb bench gateway`: mosquitto without a queue limit that would be measured.

Rule: the same two for every peer: an inbound one that the load speaks to, an upstream one that
the sink listens to; neither writes to disk, so that only the peer's own durability is measured.
"""

from __future__ import annotations

import getpass
from pathlib import Path

from kerb_sim.broker import Broker, find_mosquitto

WINDOW = 2000  # messages that the inbound broker lets a subscriber leave unacknowledged


class BenchBroker(Broker):
    """A mosquitto with the settings above and `settings` behind them."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        super().__init__(directory)
        self._settings = settings

    @property
    def log(self) -> Path:
        """What it says: who has subscribed to what."""
        return self._directory / "broker.log"

    @property
    def pid(self) -> int:
        """The process."""
        if self._process is None:
            raise RuntimeError("the broker does not run")
        return self._process.pid

    def _command(self) -> list[str]:
        program = find_mosquitto()
        if program is None:
            raise RuntimeError("mosquitto is missing: make setup installs it")
        config = self._directory / "mosquitto.conf"
        config.write_text(
            f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"max_queued_messages 0\nmax_inflight_messages {WINDOW}\nlog_type subscribe\n"
            f"log_type error\n{self._settings}"
        )
        return [str(program), "-c", str(config)]
