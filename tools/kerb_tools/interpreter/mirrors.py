"""The machine's own Debian mirrors, turned to a newer suite, in a private apt configuration.

Rule: mirror and keyring are whatever this machine is configured with; nothing of the system's apt
state is read or changed; apt verifies the signatures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SOURCES = Path("/etc/apt")
_LINE = re.compile(r"^deb(?:-src)?\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")
_DEBIAN_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)


@dataclass(frozen=True)
class Mirror:
    """An archive's address and the keyring that signs it ("" for apt's default)."""

    uri: str
    keyring: str


def configured(root: Path = _SOURCES) -> list[Mirror]:
    """Return the Debian archives that this machine is configured with, in order."""
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]
    mirrors: list[Mirror] = []
    for file in files:
        try:
            text = file.read_text()
        except OSError:
            continue
        found = _deb822(text) if file.suffix == ".sources" else _one_line(text)
        mirrors.extend(mirror for mirror in found if mirror not in mirrors)
    return [mirror for mirror in mirrors if mirror.uri.rstrip("/").endswith("/debian")]


def _deb822(text: str) -> list[Mirror]:
    mirrors = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = {}
        for line in stanza.splitlines():
            if not line.startswith("#") and ":" in line and not line[0].isspace():
                name, value = line.split(":", 1)
                fields[name.strip().lower()] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        for uri in fields.get("uris", "").split():
            mirrors.append(Mirror(uri, fields.get("signed-by", "")))
    return mirrors


def _one_line(text: str) -> list[Mirror]:
    mirrors = []
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match:
            signed = re.search(r"signed-by=(\S+)", match["options"] or "")
            mirrors.append(Mirror(match["uri"], signed[1] if signed else ""))
    return mirrors


def write_private(directory: Path, mirror: Mirror, suites: tuple[str, ...]) -> Path:
    """Write an apt configuration that knows only `suites` of `mirror`; return its path."""
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    keyring = mirror.keyring or next((k for k in _DEBIAN_KEYRINGS if Path(k).exists()), "")
    option = f"[signed-by={keyring}] " if keyring else ""
    lines = [
        f"{kind} {option}{mirror.uri} {suite} main\n"
        for suite in suites
        for kind in ("deb", "deb-src")
    ]
    (directory / "sources.list").write_text("".join(lines))
    config = directory / "apt.conf"
    config.write_text(
        f'Dir::State::Lists "{directory}/lists";\nDir::Cache "{directory}/cache";\n'
        f'Dir::Etc::SourceList "{directory}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
        'APT::Sandbox::User "root";\nAcquire::Languages "none";\nAPT::Update::Post-Invoke {};\n'
        'Acquire::http::Timeout "30";\nAcquire::Retries "2";\n'
    )
    return config
