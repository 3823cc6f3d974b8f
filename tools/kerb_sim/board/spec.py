"""What a virtual board is made of, and the files that stand for its chips.

Rule: everything a board remembers lies in its directory: flash.img (a littlefs image), nvs.json,
rtc.bin (gone with the power) and console.log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from littlefs import LittleFS

BLOCK_BYTES = 4096
_TOP = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class BoardSpec:
    """One board; `identity` is the provisioning blob, `settings` what settings.json says.

    With `console` its USB serial port is a pty, and it is a board as it is bought: a stock image
    that runs what lies on its flash, which is nothing but `tree`. Without `identity` it is blank.
    """

    node_id: bytes
    directory: Path
    identity: bytes
    settings: dict[str, Any] = field(default_factory=dict)
    flash_blocks: int = 128
    heap: str = "128wK"
    firmware: Path = _TOP / "firmware"
    shared: Path = _TOP / "shared"
    uart: Path | None = None
    driver_enable_pin: int | None = None
    console: bool = False
    tree: Path | None = None

    @property
    def name(self) -> str:
        """The node's id as 12 hex digits."""
        return self.node_id.hex()

    @property
    def flash_path(self) -> Path:
        return self.directory / "flash.img"

    @property
    def nvs_path(self) -> Path:
        return self.directory / "nvs.json"

    @property
    def rtc_path(self) -> Path:
        return self.directory / "rtc.bin"

    @property
    def console_path(self) -> Path:
        return self.directory / "console.log"


def manufacture(spec: BoardSpec) -> None:
    """Make the board's files as a technician leaves them: flashed, provisioned, never started."""
    spec.directory.mkdir(parents=True, exist_ok=True)
    spec.rtc_path.unlink(missing_ok=True)
    if not spec.identity:
        spec.flash_path.write_bytes(b"\xff" * BLOCK_BYTES * spec.flash_blocks)
        spec.nvs_path.write_text("{}")
        return
    disk = LittleFS(block_size=BLOCK_BYTES, block_count=spec.flash_blocks)
    _put(disk, "identity.bin", spec.identity)
    _put(disk, "settings.json", json.dumps(spec.settings).encode())
    if spec.tree is not None:
        _put_tree(disk, spec.tree)
    spec.flash_path.write_bytes(bytes(disk.context.buffer))
    spec.nvs_path.write_text(json.dumps({"kerb": {"identity": spec.identity.hex()}}))


def _put_tree(disk: Any, tree: Path) -> None:
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_dir():
            disk.mkdir(name)
        else:
            _put(disk, name, path.read_bytes())


def _put(disk: Any, name: str, data: bytes) -> None:
    with disk.open(name, "wb") as file:
        file.write(data)
