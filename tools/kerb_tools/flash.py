"""kerb flash: put a MicroPython image, the firmware and a node's identity onto an ESP32.

The image is a file that you have (micropython's ESP32_GENERIC, 1.24 or newer); esptool writes it,
mpremote copies the tree of `kerb board` and the folder that `kerb provision` made, and restarts
the board. Without --image, files of an older tree go; the log stays, and so do settings and
identity unless --node brings others. --image erases the whole chip first: log, settings, identity
and NVS. Records that the gateway has not fetched are lost then, so let it fetch them first; and
--image asks for --node, or for --image-only where a blank board is wanted. On a port without a
reset line press the board's reset button when the command says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import serial

from kerb_tools import board_tree, maintenance
from kerb_tools.parser import new as parser_of

_IMAGE_OFFSET = "0x1000"  # second-stage bootloader of the original ESP32, ESP-IDF "Bootloader"
_ESP_IMAGE_MAGIC = 0xE9
_CHIP_ID_AT = 12  # esptool documentation, "Firmware Image Format": 2 bytes, 0 is the ESP32
_HEADER_BYTES = 24
_BAUD = "460800"
_CONSOLE_BAUD = 115200
_STEP_S = 600
_NODE_FILES = ("identity.bin", "settings.json")

# A stale .py would win over the new .mpy of the same name (MicroPython, py/builtinimport.c).
_TIDY = """
import os
def tidy(folder):
    for entry in os.ilistdir(folder):
        path = folder + "/" + entry[0]
        if entry[1] == 0x4000:
            tidy(path)
        elif path not in wanted:
            os.remove(path)
            print("removed", path)
for folder in packages:
    if folder in os.listdir("/"):
        tidy("/" + folder)
"""


class Mistake(Exception):
    """Something that the person at the keyboard can mend."""


@dataclass(frozen=True)
class Tree:
    """What goes onto the board: files of `folder`, and the node's own."""

    folder: Path
    files: list[str]
    size_bytes: int

    @classmethod
    def make(cls, folder: Path) -> Tree:
        """Compile the firmware into `folder`."""
        paths = board_tree.write(folder)
        names = [path.relative_to(folder).as_posix() for path in paths]
        return cls(folder, names, sum(path.stat().st_size for path in paths))

    def tidy_program(self) -> str:
        """Return the program that removes what an older tree left in the same packages."""
        wanted = {f"/{name}" for name in self.files}
        packages = sorted({name.split("/")[0] for name in self.files if "/" in name})
        return f"wanted = {sorted(wanted)!r}\npackages = {packages!r}\n{_TIDY}"


def check_image(path: Path) -> None:
    """Raise Mistake unless `path` looks like an image for the original ESP32."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise Mistake(f"--image {path}: cannot be read: {error.strerror}") from None
    if not header or header[0] != _ESP_IMAGE_MAGIC:
        raise Mistake(f"--image {path}: not an ESP32 image (it does not begin with 0xE9)")
    chip_id = int.from_bytes(header[_CHIP_ID_AT : _CHIP_ID_AT + 2], "little")
    if chip_id:
        raise Mistake(
            f"--image {path}: for another chip (id {chip_id}) than the original ESP32; "
            "take ESP32_GENERIC"
        )


def check_node(folder: Path) -> None:
    """Raise Mistake unless kerb provision made this folder."""
    for name in _NODE_FILES:
        if not (folder / name).is_file():
            raise Mistake(f"--node {folder}: has no {name}; kerb provision makes it")


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
    """Erase the chip, as another MicroPython may not read the old file system; write the image."""
    common = ("--chip", "esp32", "--port", port, "--baud", baud, "--before", before)
    _run("esptool", *common, "write-flash", "--erase-all", _IMAGE_OFFSET, str(image))


def stop_application(port: str) -> None:
    """Bring the board to its prompt before its watchdog runs; Mistake if it does not come."""
    try:
        with serial.serial_for_url(port, _CONSOLE_BAUD) as opened:
            reached = maintenance.enter(opened, lambda line: print(f"  {line}", flush=True))
    except (serial.SerialException, OSError, ValueError) as error:
        raise Mistake(f"{port}: {error}") from None
    if not reached:
        raise Mistake(
            f"{port}: the board did not come to its prompt; does it have MicroPython (--image "
            "writes it), and is its console_window_ms more than 0?"
        )


def copy_tree(port: str, tree: Tree, node: Path | None) -> None:
    """Tidy up, copy the tree and, if given, a node's files, and restart the board.

    One mpremote run: opening a port again may reset a board, and then its watchdog starts.
    """
    steps = ["connect", port, "exec", tree.tidy_program()]
    steps += ["+", "fs", "cp", "-r", f"{tree.folder}/.", ":"]
    for name in _NODE_FILES if node is not None else ():
        steps += ["+", "fs", "cp", str(Path(node or "") / name), f":{name}"]
    _run("mpremote", *steps, "+", "reset")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "kerb flash",
        __doc__,
        "kerb flash --port /dev/ttyUSB0 --image ESP32_GENERIC.bin --node provisioned/nodes/ID",
        "kerb flash --port /dev/ttyUSB0   # the firmware alone, after an update",
    )
    parser.add_argument("--port", required=True, help="such as /dev/ttyUSB0")
    parser.add_argument(
        "--image",
        type=Path,
        help="the MicroPython image; ERASES the board's log, settings, identity and NVS first",
    )
    parser.add_argument("--node", type=Path, help="a folder that kerb provision made")
    parser.add_argument(
        "--image-only", action="store_true", help="copy no files: the board is blank afterwards"
    )
    parser.add_argument("--baud", default=_BAUD, help="[%(default)s]")
    parser.add_argument(
        "--before", default="default-reset", help="esptool's --before [%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Find every mistake before anything is written."""
    if options.image is None and options.image_only:
        raise Mistake("--image-only needs --image")
    if options.node is not None:
        check_node(options.node)
    if options.image is not None:
        check_image(options.image)
        if options.node is None and not options.image_only:
            raise Mistake(
                "--image erases the board, its identity and log too: give --node, the folder that "
                "kerb provision made; or leave --image out to bring the firmware alone; or say "
                "--image-only for a blank board"
            )


def _put(options: argparse.Namespace) -> dict[str, object]:
    """Do what was asked for and return what was done."""
    done: dict[str, object] = {"port": options.port, "image": None, "node": None, "files": 0}
    with tempfile.TemporaryDirectory() as scratch:
        # First: what does not compile must not leave an erased board behind.
        tree = None if options.image_only else Tree.make(Path(scratch) / "board")
        if options.image is not None:
            print(f"erasing {options.port}, then writing {options.image}", flush=True)
            write_image(options.port, options.image, options.baud, options.before)
            done["image"] = str(options.image)
        if tree is None:
            return done
        print(f"stopping the application on {options.port}", flush=True)
        stop_application(options.port)
        print(f"copying {len(tree.files)} files, {tree.size_bytes} bytes", flush=True)
        copy_tree(options.port, tree, options.node)
    node = None if options.node is None else str(options.node)
    return done | {"node": node, "files": len(tree.files), "bytes": tree.size_bytes}


def main(arguments: list[str]) -> int:
    """Run the command; exit status 2 for a mistake."""
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        done = _put(options)
    except (Mistake, RuntimeError) as error:
        print(f"kerb flash: {error}", file=sys.stderr)
        return 2
    print("done; kerb monitor shows what the board says")
    if options.json:
        print(json.dumps(done))
    return 0
