"""A real gateway process over a file that a test has filled, and its command line."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from kerb_gateway.cli import app
from parts import KEY, NODE_ID, Parts, heard
from typer.testing import CliRunner

_CONFIG = """
[gateway]
id = "gw1"
site = "north"
[store]
path = "gateway.sqlite"
commit_interval_s = 0.2
ballast_mb = 0
[uplink]
host = "127.0.0.1"
port = {port}
keepalive_s = 5
[ble]
enabled = false
[[nodes]]
node_id = "{node}"
role = "bin"
key_file = "key"
"""


def write_config(folder: Path, port: int = 1, more: str = "") -> Path:
    """Write a configuration with one bin; returns its path."""
    (folder / "key").write_text(KEY.hex())
    config = folder / "gateway.toml"
    config.write_text(_CONFIG.format(port=port, node=NODE_ID) + more)
    return config


async def fill(path: Path, count: int, *, buried: bool) -> None:
    """Store `count` readings; they wait in the outbox, or are all dead letters."""
    parts = await Parts.open(path)
    await parts.stream()
    for seq in range(1, count + 1):
        parts.ingest.advert(heard(seq))
    await parts.ingest.commit()
    if buried:
        for message in await parts.ledger.outbox.after(0, count):
            parts.ledger.bury(message, "0x87")
            parts.ledger.outbox.ended(message.outbox_no)
        await parts.ingest.commit()
        await parts.ledger.outbox.write_mark()
    await parts.store.close()


def command(config: Path, *words: str, status: int = 0) -> str:
    """Run kerb-gateway WORDS --config CONFIG; returns what it printed, or what it complained."""
    answer = CliRunner().invoke(app, [*words, "--config", str(config)], env={"COLUMNS": "200"})
    assert answer.exit_code == status, answer.output
    return answer.stdout if status == 0 else answer.stderr


class Running:
    """A gateway process."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.log = config.with_name("gateway.log")
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Running:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)

    async def start(self) -> None:
        """Start it and wait until it says so."""
        before = len(self.events("started"))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kerb_gateway", "run", "--config", str(self.config),
                stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(20):
            while len(self.events("started")) == before:
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)

    async def end(self, number: int) -> None:
        """Send a signal and wait for the process."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [row for row in rows if row["event"] == name]


class Subscriber:
    """The checker's own subscriber on everything, as a process."""

    def __init__(self, file: Path, port: int) -> None:
        self._file, self._port = file, port

    async def __aenter__(self) -> Subscriber:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kerb_check.subscriber", "--port", str(self._port),
            "--file", str(self._file), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), 20) == b"ready\n"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await self._process.wait()

    def payloads(self, leaf: str) -> list[Any]:
        """Return what arrived on topics that end so; a batch counts as its readings."""
        found: list[Any] = []
        text = self._file.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():  # the last may be half there
            row = json.loads(line)
            end = row.get("topic", "").rsplit("/", 1)[-1]
            if leaf == "reading" and end == "batch":
                found += row["payload"]
            elif end == leaf:
                found.append(row["payload"])
        return found

    async def until(self, leaf: str, count: int) -> list[Any]:
        """Wait for at least `count` of them and return them."""
        async with asyncio.timeout(30):
            while len(found := self.payloads(leaf)) < count:
                await asyncio.sleep(0.05)
        return found
