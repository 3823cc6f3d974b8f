"""The cache of provisioned interpreters: whole or not at all, and checked at each use.

Rule: a route works in a temporary folder and the result is renamed into place; every file's
SHA-256 stands in a manifest; what does not match is thrown away and made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_MANIFEST = "manifest.json"
_PROGRAM = "micropython"

Route = Callable[[Path, Callable[[str], None]], None]


def directory() -> Path:
    """Return the cache's folder: $KERB_CACHE, else the user's own."""
    if os.environ.get("KERB_CACHE"):
        return Path(os.environ["KERB_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kerbstone"


def verified(name: str) -> Path | None:
    """Return the cached program of a route if every byte of it is as it was made."""
    place = directory() / f"micropython-{name}"
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    if any(_digest(place / file) != digest for file, digest in manifest.items()):
        return None
    return place / _PROGRAM


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "missing"


def provision(name: str, route: Route, say: Callable[[str], None]) -> Path:
    """Make a route's interpreter, once, even when two processes want it; return the program."""
    root = directory()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = verified(name)
        if ready is not None:
            return ready
        with tempfile.TemporaryDirectory(dir=root, prefix=f"{name}-") as scratch:
            result = Path(scratch) / "result"
            result.mkdir()
            route(result, say)
            files = [path for path in sorted(result.rglob("*")) if path.is_file()]
            manifest = {str(path.relative_to(result)): _digest(path) for path in files}
            (result / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            place = root / f"micropython-{name}"
            shutil.rmtree(place, ignore_errors=True)
            result.rename(place)
    return place / _PROGRAM
