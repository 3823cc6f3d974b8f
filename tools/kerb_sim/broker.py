"""A broker for the street: mosquitto where there is one, else amqtt, on a free port.

Rule: its whole state lies in the run's directory; a restart keeps its port and its sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

_START_S = 15.0


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_mosquitto() -> Path | None:
    """Return the mosquitto program, also where a user's PATH does not look."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/usr/local/sbin"
    found = shutil.which("mosquitto", path=path)
    return Path(found) if found else None


class Broker:
    """A broker process; `name` says which one it is."""

    def __init__(
        self,
        directory: Path,
        program: Path | None = None,
        extra: str = "",
        *,
        max_inflight: int = 200,
    ) -> None:
        """program: a mosquitto; None: look for one, and use amqtt without.

        extra: more lines for mosquitto's configuration; max_inflight: what it says to its clients
        as its Receive Maximum.
        """
        self._extra = extra
        self._max_inflight = max_inflight
        self._directory = directory
        self._program = program or find_mosquitto()
        self._process: asyncio.subprocess.Process | None = None
        self.saves = True  # False, from the next start on: what it queues is lost with it
        self.port = free_port()
        self.name = "mosquitto" if self._program else "amqtt (MQTT 3.1.1 only)"

    async def start(self) -> None:
        """Start it and wait until it takes connections; RuntimeError if it does not."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "broker.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await self._answering()

    def _command(self) -> list[str]:
        if self._program is None:
            config = self._directory / "amqtt.yaml"
            config.write_text(
                f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{self.port}\n"
                "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n"
                "    allow_anonymous: true\n"
            )
            return [str(Path(sys.executable).parent / "amqtt"), "-c", str(config)]
        data = self._directory / "broker"
        data.mkdir(exist_ok=True)
        config = self._directory / "mosquitto.conf"
        config.write_text(
            # Started by root it would become another user, who cannot write into the run.
            f"user {getpass.getuser()}\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence {str(self.saves).lower()}\npersistence_location {data}/\n"
            # Each change is written at once, but after its PUBACK: what a broker has acknowledged
            # in its last milliseconds, and given to nobody, is lost when it is killed.
            "autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\n"
            f"max_inflight_messages {self._max_inflight}\n{self._extra}"
        )
        return [str(self._program), "-c", str(config)]

    async def _answering(self) -> None:
        deadline = asyncio.get_running_loop().time() + _START_S
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except OSError:
                if asyncio.get_running_loop().time() > deadline or (
                    self._process is not None and self._process.returncode is not None
                ):
                    raise RuntimeError(f"{self.name} does not start: see broker.log") from None
                await asyncio.sleep(0.05)

    async def stop(self, *, kill: bool = False) -> None:
        """End it; kill: without a chance to say goodbye."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        await process.wait()

    def reload(self) -> None:
        """Let mosquitto read its access list anew."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        """Stop the process without ending it: it takes what is sent and answers nothing."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
