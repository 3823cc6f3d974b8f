"""Runs one input under limits of time and memory, and says what became of it.

Rule: what is running is written down before it runs, so that even the death of the process names
its input. Time is this process's own (ITIMER_VIRTUAL): a busy machine makes no hang.
"""

from __future__ import annotations

import mmap
import re
import resource
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kerb_wire.errors import RemoteFault

from kerb_tools.fuzz.target import Run, Target

INPUT_CPU_S = 2.0
MEMORY_MB = 1024
_NOTE_BYTES = 1 << 16
_DIGITS = re.compile(r"\d+")
_OURS = ("/kerb_wire/", "/kerb_gateway/", "/kerb_node/")


class Hang(BaseException):
    """An input that takes too long; no `except Exception` on its way may swallow it."""


@dataclass(frozen=True)
class Finding:
    """What an input did that it must not; `signature` is the same for the same fault."""

    target: str
    kind: str  # error | hang | memory | death | difference
    what: str
    where: str
    data: bytes
    detail: str = ""

    @property
    def signature(self) -> str:
        """Return what tells this fault from others."""
        return f"{self.target} {self.kind} {self.what} {self.where}"


@dataclass(frozen=True)
class Outcome:
    """How an input ended: `word` tells kinds of ends apart, `finding` only if it must not."""

    word: str
    finding: Finding | None = None


def limit_memory(megabytes: int = MEMORY_MB) -> None:
    """Bound what this process may take from now on, on top of what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak_rss_mb() -> float:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Note:
    """The input that is running, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(_NOTE_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NOTE_BYTES)

    def write(self, data: bytes) -> None:
        """Write down what runs next."""
        kept = data[: _NOTE_BYTES - 4]
        self._map[: 4 + len(kept)] = len(kept).to_bytes(4, "little") + kept

    @staticmethod
    def read(path: Path) -> bytes:
        """Return what was running last."""
        raw = path.read_bytes()
        return raw[4 : 4 + int.from_bytes(raw[:4], "little")]


class Guard:
    """Runs a target's inputs."""

    def __init__(
        self, target: Target, run: Run, note: Note | None = None, *, cpu_s: float = INPUT_CPU_S
    ) -> None:
        """cpu_s: what one input may take of the processor's time."""
        self._cpu_s = cpu_s
        self._target = target
        self._run = run
        self._note = note
        signal.signal(signal.SIGVTALRM, self._too_long)

    def _too_long(self, number: int, frame: FrameType | None) -> None:
        raise Hang(f"{self._cpu_s} s")

    def run(self, data: bytes) -> Outcome:
        """Run one input; never raises for what it does."""
        if self._note is not None:
            self._note.write(data)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, self._cpu_s)
            try:
                self._run(data)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except self._target.allowed as error:
            return Outcome(f"{type(error).__name__} {_where(error)} {_kind_of(error)}")
        except MemoryError as error:
            return self._found("memory", error, data)
        except Hang as error:
            return self._found("hang", error, data)
        except Exception as error:  # noqa: BLE001  whatever is not allowed is what is looked for
            return self._found("error", error, data)
        return Outcome("taken")

    def _found(self, kind: str, error: BaseException, data: bytes) -> Outcome:
        where = "" if kind == "hang" else _where(error)
        detail = "".join(traceback.format_exception(error, limit=-12))
        what = type(error).__name__
        if what == "Broken":
            what = f"{what}: {_DIGITS.sub('0', str(error))[:120]}"
        finding = Finding(self._target.name, kind, what, where, data, detail)
        return Outcome(finding.signature, finding)


def _kind_of(error: Exception) -> str:
    """Return what an error of the wire blames, without what differs from input to input."""
    if not isinstance(error, RemoteFault):
        return ""
    return f"{error.reason} {_DIGITS.sub('0', error.detail.split(' = ')[0])[:60]}"


def _where(error: BaseException) -> str:
    """Return the innermost line of ours that the error came through."""
    found = last = "?"
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        last = f"{Path(code.co_filename).name}:{code.co_name}:{step.tb_lineno}"
        if any(part in code.co_filename for part in _OURS):
            found = last
        step = step.tb_next
    return last if found == "?" else found


def shrink(guard: Guard, finding: Finding, tries: int = 400) -> Finding:
    """Return the finding with the smallest input that a bounded search finds for it."""
    best = finding
    size = max(1, len(best.data) // 2)
    while size and tries and finding.kind == "error":
        at = 0
        while at < len(best.data) and tries:
            tries -= 1
            shorter = best.data[:at] + best.data[at + size :]
            found = guard.run(shorter).finding
            if found is not None and found.signature == best.signature:
                best = found
            else:
                at += size
        size //= 2
    return best
