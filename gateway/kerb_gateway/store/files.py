"""What lies at a path that a person has named.

Rule: nothing there is an answer; a path that cannot be looked at (a folder that is not ours, a
name that is too long) is StoreError with the path and the reason.
"""

from __future__ import annotations

import stat
from pathlib import Path

from kerb_gateway.errors import StoreError


def mode_of(path: Path, *, follow_symlinks: bool = True) -> int:
    """Return the st_mode of what lies there, 0 for nothing; StoreError if nobody can tell."""
    try:
        return path.stat(follow_symlinks=follow_symlinks).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a zero byte, or half a character
        raise StoreError(f"{str(path)!r}: no file can have that name") from error


def is_file(path: Path) -> bool:
    """Tell whether a file lies there; StoreError if nobody can tell."""
    return stat.S_ISREG(mode_of(path))


def is_folder(path: Path) -> bool:
    """Tell whether it is a folder; StoreError if nobody can tell."""
    return stat.S_ISDIR(mode_of(path))
