"""Finds the programs that a street needs and pip does not bring.

Rule: what is not there is None, and whoever needs it says how to get it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def find_program(name: str) -> Path | None:
    """Return a program on PATH or where only root's PATH looks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def find_dbus_daemon() -> Path | None:
    """Return dbus-daemon (Debian package dbus-daemon)."""
    return find_program("dbus-daemon")
