"""Which lines of our code an input reached for the first time: what makes it worth keeping.

Rule: a line counts once, so that tracing costs little when nothing is new; sys.monitoring where
the interpreter has it (3.12), sys.settrace elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any

_TOOL = "kerb fuzz"


class Lines:
    """Lines of the packages named, seen so far; `new` counts those since it was last set to 0."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._inside = tuple(f"/{name.replace('.', '/')}" for name in packages)
        self._wanted: dict[CodeType, set[int]] = {}
        self.seen = 0
        self.total = 0
        self.new = 0
        self._stop: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to watch this thread (3.11) or the process (3.12 and newer)."""
        if hasattr(sys, "monitoring"):
            self._start_monitoring(sys.monitoring)
        else:
            sys.settrace(self._called)
            self._stop = lambda: sys.settrace(None)

    def stop(self) -> None:
        """Watch no more."""
        self._stop()
        self._stop = lambda: None

    def _missing(self, code: CodeType) -> set[int]:
        """Return the lines of `code` that were never reached; none for foreign code."""
        wanted = self._wanted.get(code)
        if wanted is None:
            wanted = set()
            if any(part in code.co_filename for part in self._inside):
                wanted = {line for _, _, line in code.co_lines() if line is not None}
            self._wanted[code] = wanted
            self.total += len(wanted)
        return wanted

    def _reached(self, code: CodeType, line: int) -> None:
        wanted = self._missing(code)
        if line in wanted:
            wanted.discard(line)
            self.seen += 1
            self.new += 1

    # --- 3.11 ---

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        wanted = self._missing(frame.f_code)
        if not wanted:
            return None
        self._reached(frame.f_code, frame.f_lineno)
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._reached(frame.f_code, frame.f_lineno)
        return self._stepped

    # --- 3.12 and newer ---

    def _start_monitoring(self, monitoring: Any) -> None:
        tool = monitoring.COVERAGE_ID
        monitoring.use_tool_id(tool, _TOOL)

        def reached(code: CodeType, line: int) -> Any:
            self._reached(code, line)
            return monitoring.DISABLE  # this line has said all that it has to say

        monitoring.register_callback(tool, monitoring.events.LINE, reached)
        monitoring.set_events(tool, monitoring.events.LINE)
        monitoring.restart_events()  # what an earlier watch had disabled

        def stop() -> None:
            monitoring.set_events(tool, 0)
            monitoring.register_callback(tool, monitoring.events.LINE, None)
            monitoring.free_tool_id(tool)

        self._stop = stop
