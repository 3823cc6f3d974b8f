"""kerb flash: put a MicroPython image, the firmware and a node's identity onto an ESP32.

The image is a file that you have (micropython's ESP32_GENERIC, 1.24 or newer); esptool writes it,
mpremote copies the tree of `kerb board` and the folder that `kerb provision` made.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from kerb_tools import board_tree

_IMAGE_OFFSET = "0x1000"  # second-stage bootloader of the original ESP32, ESP-IDF "Bootloader"
_ESP_IMAGE_MAGIC = 0xE9
_BAUD = "460800"
_STEP_S = 600


class Mistake(Exception):
    """Something that the person at the keyboard can mend."""


def check_image(path: Path) -> None:
    """Raise Mistake unless `path` looks like an ESP32 application image."""
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise Mistake(f"--image {path}: cannot be read: {error.strerror}") from None
    if not first or first[0] != _ESP_IMAGE_MAGIC:
        raise Mistake(f"--image {path}: not an ESP32 image (it does not begin with 0xE9)")


def _run(module: str, *arguments: str) -> None:
    """Run a tool with its own progress on the terminal; Mistake if it fails."""
    try:
        answer = subprocess.run(
            [sys.executable, "-m", module, *arguments], timeout=_STEP_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Mistake(f"{module} did not end within {_STEP_S} s") from None
    if answer.returncode:
        raise Mistake(
            f"{module} failed (its own words are above); is the board on this port, in "
            "download mode if it needs that, and no monitor open?"
        )


def write_image(port: str, image: Path, baud: str, before: str) -> None:
    """Erase the chip and write the image."""
    common = ("--chip", "esp32", "--port", port, "--baud", baud, "--before", before)
    _run("esptool", *common, "write-flash", "--erase-all", _IMAGE_OFFSET, str(image))


def copy_tree(port: str, node: Path | None) -> None:
    """Copy the firmware and, if given, a node's folder."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "board"
        board_tree.write(tree)
        _run("mpremote", "connect", port, "fs", "cp", "-r", f"{tree}/.", ":")
    for name in ("identity.bin", "settings.json") if node else ():
        _run("mpremote", "connect", port, "fs", "cp", str(Path(node or "") / name), f":{name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kerb flash", description=__doc__)
    parser.add_argument("--port", required=True, help="such as /dev/ttyUSB0")
    parser.add_argument(
        "--image", type=Path, help="the MicroPython image; without it none is written"
    )
    parser.add_argument("--node", type=Path, help="a folder that kerb provision made")
    parser.add_argument("--image-only", action="store_true", help="copy no files")
    parser.add_argument("--baud", default=_BAUD, help="[%(default)s]")
    parser.add_argument(
        "--before", default="default-reset", help="esptool's --before [%(default)s]"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Run the command; exit status 2 for a mistake."""
    options = _parser().parse_args(arguments)
    try:
        if options.image is None and options.image_only:
            raise Mistake("--image-only needs --image")
        if options.node is not None and not (options.node / "identity.bin").is_file():
            raise Mistake(f"--node {options.node}: has no identity.bin; kerb provision makes it")
        if options.image is not None:
            check_image(options.image)
            print(f"writing {options.image} to {options.port}")
            write_image(options.port, options.image, options.baud, options.before)
        if not options.image_only:
            print(f"copying the firmware to {options.port}")
            copy_tree(options.port, options.node)
    except (Mistake, RuntimeError) as error:
        print(f"kerb flash: {error}", file=sys.stderr)
        return 2
    print("done; kerb monitor shows what the board says")
    return 0
