"""Builds the preloaded library and says how a process gets it.

Rule: it is compiled where it runs (its C library must be the machine's own) and lies in the work
directory, never in the repository.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from kerb_tools.faults.errors import FaultsError
from kerb_tools.system_parts import find_program

SOURCE = Path(__file__).with_name("disk_faults.c")
_COMPILE_S = 60


def build(folder: Path) -> Path:
    """Return the compiled library in `folder`; FaultsError without a C compiler."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = folder.resolve() / f"disk_faults-{digest}.so"
    if library.exists():
        return library
    compiler = find_program("gcc") or find_program("cc")
    if compiler is None:
        raise FaultsError("no C compiler: make setup installs gcc")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = library.with_suffix(f".{os.getpid()}")
    command = [str(compiler), "-O2", "-shared", "-fPIC", "-o", str(fresh), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    if done.returncode:
        raise FaultsError(f"{SOURCE.name} does not compile: {done.stderr.strip()[:300]}")
    fresh.replace(library)
    return library


def environment(
    library: Path,
    directory: Path,
    *,
    log: Path | None = None,
    control: Path | None = None,
    die_after: int | None = None,
) -> dict[str, str]:
    """Return what a process needs in its environment to be watched in `directory`.

    die_after: changes behind which it kills itself.
    """
    wanted = {"LD_PRELOAD": str(library), "KERB_DISK_DIR": str(directory.resolve())}
    if log is not None:
        wanted["KERB_DISK_LOG"] = str(log.resolve())
    if die_after is not None:
        wanted["KERB_DISK_DIE"] = str(die_after)
    if control is not None:
        wanted["KERB_DISK_CTL"] = str(control.resolve())
    return wanted
