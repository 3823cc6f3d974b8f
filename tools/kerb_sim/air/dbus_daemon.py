"""A private D-Bus: the one that the gateway under test takes for the system bus.

Rule: its socket lies in the run's own directory, or in one of its own where that would make a name
too long for a socket; nothing else is spoken to.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
_START_S = 5.0
_NAME_MAX_BYTES = 99  # unix(7): sun_path has 108; dbus-daemon takes 99 ("Socket name too long")


class DbusDaemon:
    """A running dbus-daemon; `address` is what DBUS_SYSTEM_BUS_ADDRESS must say."""

    def __init__(
        self, process: asyncio.subprocess.Process, address: str, spare: Path | None = None
    ) -> None:
        """spare: a directory that goes with the daemon."""
        self._process = process
        self._spare = spare
        self.address = address

    @classmethod
    async def start(cls, program: Path, directory: Path) -> DbusDaemon:
        """Start `program` with its socket in `directory`; RuntimeError if it does not come up."""
        directory.mkdir(parents=True, exist_ok=True)
        socket, spare = directory / "bus", None
        if len(str(socket).encode()) > _NAME_MAX_BYTES:
            spare = Path(tempfile.mkdtemp(prefix="kerb-bus-"))
            socket = spare / "bus"
        socket.unlink(missing_ok=True)
        config = directory / "bus.conf"
        config.write_text(_CONFIG.format(socket=socket))
        process = await asyncio.create_subprocess_exec(
            str(program),
            f"--config-file={config}",
            "--nofork",
            "--nopidfile",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        daemon = cls(process, f"unix:path={socket}", spare)
        deadline = asyncio.get_running_loop().time() + _START_S
        while not await _takes_connections(socket):
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                await daemon.stop()
                raise RuntimeError(f"dbus-daemon did not start (exit status {process.returncode})")
            await asyncio.sleep(0.02)
        return daemon

    async def stop(self) -> None:
        """End the daemon; its clients see the bus go away."""
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()
        if self._spare is not None:
            shutil.rmtree(self._spare, ignore_errors=True)


async def _takes_connections(socket: Path) -> bool:
    """Tell whether somebody listens: the file is there a moment before that (bind, listen)."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    writer.close()
    return True
