"""The node flash images: every record that a node stored, straight from its littlefs.

Rule: the image is read as bytes on the host; the node's own answers are not asked for. Where a log
is so small that it overwrites, copies that were made while the node slept (flash-*.img) say what
lay there before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerb_wire import records, segment
from kerb_wire.errors import RemoteFault
from littlefs import LittleFS, LittleFSError
from littlefs.context import UserContext

from kerb_check.model import Identity, Reading, SourceError, content_of

BLOCK_BYTES = 4096
_LOG = "/log"


@dataclass
class Flash:
    """What one node's image holds."""

    node: str
    readings: list[Reading] = field(default_factory=list)
    torn_rows: int = 0  # a power cut in the middle of an append; never acknowledged
    damaged_rows: int = 0
    overwritten: set[Identity] = field(default_factory=set)  # only copies hold them


def read_all(directory: Path, node: str) -> Flash:
    """Return the records of a node's flash and of its copies; SourceError as read()."""
    flash = read(directory / "flash.img", node)
    known = {reading.identity: reading for reading in flash.readings}
    for path in sorted(directory.glob("flash-*.img")):
        for reading in read(path, node).readings:
            first = known.setdefault(reading.identity, reading)
            flash.damaged_rows += first.extra != reading.extra
    flash.overwritten = known.keys() - {reading.identity for reading in flash.readings}
    if flash.overwritten:
        flash.readings = sorted(known.values(), key=lambda one: one.identity.seq)
    return flash


def read(path: Path, node: str) -> Flash:
    """Return the records of one flash image; SourceError if it is no readable littlefs."""
    try:
        image = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{node}/{path.name}: cannot be read: {error}") from error
    if not image or len(image) % BLOCK_BYTES:
        raise SourceError(f"{node}/{path.name}: cut short: {len(image)} bytes")
    context = UserContext(len(image))
    context.buffer = bytearray(image)
    try:
        fs = LittleFS(
            context=context,
            block_size=BLOCK_BYTES,
            block_count=len(image) // BLOCK_BYTES,
            mount=True,
        )
        names = sorted(fs.listdir(_LOG)) if "log" in fs.listdir("/") else []
        segments = [_content(fs, f"{_LOG}/{name}") for name in names if name.endswith(".seg")]
    except (LittleFSError, OSError) as error:
        raise SourceError(f"{node}/{path.name}: not a readable littlefs: {error}") from error
    flash = Flash(node)
    for data in segments:
        read_segment(flash, data)
    return flash


def _content(fs: Any, name: str) -> bytes:
    with fs.open(name, "rb") as file:
        return bytes(file.read())


def read_segment(flash: Flash, data: bytes) -> None:
    """Add what one segment file holds to `flash`."""
    try:
        header = segment.unpack_header(data)
    except RemoteFault:
        # The header is the first thing written: a torn one holds no record yet.
        flash.torn_rows += 1
        return
    for at in range(segment.HEADER_BYTES, len(data), segment.ROW_BYTES):
        row = data[at : at + segment.ROW_BYTES]
        try:
            record = segment.unpack_row(row)
            unpacked = records.unpack(record)
        except RemoteFault:
            if len(row) < segment.ROW_BYTES:
                flash.torn_rows += 1
            else:
                flash.damaged_rows += 1
            continue
        identity = Identity(flash.node, header.epoch, unpacked.seq)
        flash.readings.append(Reading(identity, content_of(unpacked), {"record": record}))
