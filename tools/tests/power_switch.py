"""The supply of a held board as a command, for `pytest hil_tests --power=COMMAND`.

Run as `python power_switch.py SOCKET on|off|reset` it asks the PowerSwitch that listens there.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_WORD_BYTES = 16


class PowerSwitch:
    """Listens at `path`; `turn` does what on, off and reset ask for."""

    def __init__(self, path: Path, turn: Callable[[str], None]) -> None:
        self._turn = turn
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.command = f"{sys.executable} -S {__file__} {path}"

    def __enter__(self) -> PowerSwitch:
        self._thread.start()
        return self

    def _serve(self) -> None:
        while True:
            asked, _ = self._server.accept()
            with asked:
                word = asked.recv(_WORD_BYTES).decode()
                if word == "end":
                    return
                self._turn(word)
                asked.sendall(b"done")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ask(self._server.getsockname(), "end")
        self._thread.join()
        self._server.close()


def ask(path: str, word: str) -> bool:
    """Say a word to the switch and wait until it is done."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(path)
        asker.sendall(word.encode())
        return asker.recv(_WORD_BYTES) == b"done"


if __name__ == "__main__":
    raise SystemExit(0 if ask(sys.argv[1], sys.argv[2]) else 1)
