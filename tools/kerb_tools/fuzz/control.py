"""Target: what local users may send to the gateway's control socket, many of them at once.

Rule: the real server, desk and store over a real unix socket. Whoever sends whatever, each
connection comes to its end, a request that is refused writes nothing, nobody is answered more
often than he asked, and the next honest request is answered.

Each piece is one step, by its first byte: bits 0 to 3 choose the client (more than the server
takes), bits 4 to 6 what it does: 0 sends a line, 1 sends bytes, 2 sends them over and over (with
bit 7 as one line that is not too long), 3 sends a line many times, 4 leaves, 5 says that no more
comes, 6 reads, 7 waits. In the end nobody reads until the server has lost its patience with all.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

from kerb_gateway.desk import Desk
from kerb_gateway.service.control import ControlSocket, address
from kerb_gateway.service.protocol import (
    LETTERS_MAX,
    LINE_MAX_BYTES,
    DropLetters,
    ReplayLetters,
    ReplayRows,
    Request,
)
from kerb_gateway.store.database import Operation
from kerb_gateway.store.letters import Letters
from kerb_gateway.store.replays import OPEN_MAX, Replays

from kerb_tools.fuzz import warp
from kerb_tools.fuzz.both.wire_targets import pieces
from kerb_tools.fuzz.gateway_bench import Bench, Benches, log
from kerb_tools.fuzz.target import Broken, Run, Target
from kerb_tools.fuzz.wire_seeds import as_pieces

_LETTERS = 40
_FLOOD_BYTES = LINE_MAX_BYTES + 4096
_FLOOD_LINES = 64
_LINES_MOST = 1500  # of one input, so that an input's work is bounded
_BYTES_MOST = 1 << 17
_READ_BYTES = 1 << 16
_LOOK_S = 0.1
_PATIENCE_S = 20.0  # longer than the server's: for a line, an answer's way, and the last bytes
_HELD_MOST = LETTERS_MAX * 1024  # what a client's unfinished line may come to
_HONEST = b'{"op":"letters.list"}\n'

_COUNTS = (
    ("letters", "select count(*) from dead_letters"),
    ("ended", "select count(*) from ended_letters"),
    ("again", "select count(*) from ended_letters where ended = 'replayed'"),
    ("replays", "select count(*) from replays"),
)


class _Client:
    """One end of a connection that never waits for the other."""

    def __init__(self, path: Path) -> None:
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._end.setblocking(False)
        self._held = b""
        self.open = True
        self.asked = 0  # lines that were begun
        self.answers: list[dict[str, Any]] = []
        try:
            with address(path) as short:
                self._end.connect(short)
        except BlockingIOError:  # the server has not taken those before yet
            self.leave()

    def send(self, data: bytes) -> None:
        """Send as much as goes at once; the rest is never sent."""
        if not self.open:
            return
        try:
            sent = self._end.send(data)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return
        self.asked += data.count(b"\n", 0, sent) + (data[sent - 1 : sent] != b"\n")

    def finish(self) -> None:
        """Say that no more comes."""
        if self.open:
            try:
                self._end.shutdown(socket.SHUT_WR)
            except OSError:
                self.leave()

    def read(self) -> None:
        """Read what is there; at the connection's end close this one too."""
        while self.open:
            try:
                data = self._end.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self.leave()
            *lines, self._held = (self._held + data).split(b"\n")
            if len(self._held) > _HELD_MOST:
                raise Broken("an answer without end")
            self.answers += [_answer(line) for line in lines]

    def leave(self) -> None:
        """Close, whatever is still unread."""
        self.open = False
        self._end.close()


def _answer(line: bytes) -> dict[str, Any]:
    fields = json.loads(line)
    if not isinstance(fields, dict) or type(fields.get("ok")) is not bool:
        raise Broken("an answer that says neither yes nor no")
    if not fields["ok"] and not fields.get("why"):
        raise Broken("a refusal without a reason")
    return fields


class _Counted:
    """The desk, and what its yes must have written."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.written: Counter[str] = Counter()

    async def answer(self, request: Request, who: str) -> dict[str, Any]:
        """Answer by the desk; what it refuses is not counted."""
        said = await self._desk.answer(request, who)
        if isinstance(request, ReplayLetters):
            self.written["again"] += len(said["replayed"])
        elif isinstance(request, DropLetters):
            self.written["dropped"] += len(said["dropped"])
        elif isinstance(request, ReplayRows):
            self.written["replays"] += 1
        return said


class _Crowd:
    """The clients, and the steps that they take."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: dict[int, _Client] = {}
        self._every: list[_Client] = []
        self._lines, self._bytes = _LINES_MOST, _BYTES_MOST

    async def step(self, piece: bytes) -> None:
        """Let a client do what the piece says."""
        number, deed, body = piece[0] & 15, piece[0] >> 4 & 7, piece[1:]
        client = self._client(number)
        if deed < 4:
            self._send(client, self._said(deed, body, whole=piece[0] >= 0x80))
        elif deed == 4:
            client.leave()
        elif deed == 5:
            client.finish()
        elif deed == 6:
            client.read()
        else:
            await asyncio.sleep((body[0] if body else 1) * _LOOK_S)
        await asyncio.sleep(0)

    def _client(self, number: int) -> _Client:
        if number not in self._clients or not self._clients[number].open:
            self._clients[number] = _Client(self._path)
            self._every.append(self._clients[number])
        return self._clients[number]

    @staticmethod
    def _said(deed: int, body: bytes, *, whole: bool) -> bytes:
        if deed == 2 and body:
            size = LINE_MAX_BYTES if whole else _FLOOD_BYTES
            return body * (size // len(body)) + b"\n" * whole
        return (body + b"\n") * _FLOOD_LINES if deed == 3 else body + b"\n" * (deed == 0)

    def _send(self, client: _Client, data: bytes) -> None:
        self._lines -= data.count(b"\n")
        self._bytes -= len(data)
        if self._lines >= 0 and self._bytes >= 0:
            client.send(data)

    async def part(self) -> None:
        """Stay silent and read nothing; the server must have parted from each of them then."""
        await asyncio.sleep(_PATIENCE_S)
        for client in self._every:
            client.read()
            if client.open:
                raise Broken("a connection that does not end")
            if len(client.answers) > client.asked + 1:  # one for who is one too many
                raise Broken("more answers than requests")


async def _ask(path: Path) -> None:
    """Ask as `kerb-gateway letters list` does, three times in one connection."""
    honest = _Client(path)
    honest.send(_HONEST * 3)
    honest.finish()
    while honest.open:
        await asyncio.sleep(_LOOK_S)
        honest.read()
    if [one["ok"] for one in honest.answers] != [True] * 3:
        raise Broken("an honest request was not answered")


async def _written(bench: Bench, desk: _Counted) -> None:
    """Compare what the file holds with what the desk said yes to."""
    now = {name: (await bench.store.query(sql))[0][0] for name, sql in _COUNTS}
    again, dropped = desk.written["again"], desk.written["dropped"]
    said = {
        "letters": _LETTERS - again - dropped,
        "ended": again + dropped,
        "again": again,
        "replays": desk.written["replays"],
    }
    if now != said or now["replays"] > OPEN_MAX:
        raise Broken("the file holds something else than what was said yes to")


def _prepared() -> list[Operation]:
    """Return what makes the letters that there are to be replayed or dropped."""
    insert = (
        "insert into dead_letters (outbox_no, kind, topic, payload, reason) values (?,?,?,?,?)"
    )
    return [
        (insert, [number, "message", "kerb/north/" + "t" * 100, b"{}", "0x87"])
        for number in range(1, _LETTERS + 1)
    ]


def _make() -> Run:
    benches = Benches(_prepared())

    async def story(data: bytes) -> None:
        bench = await benches.open()
        letters = Letters(bench.store, bench.ledger, bench.clock)
        replays = Replays(bench.store, bench.ledger)
        desk = _Counted(Desk(letters, replays, bench.ingest.commit))
        path = bench.path.with_name("control.sock")
        control = ControlSocket(path, desk.answer, log)
        if not await control.start():
            raise Broken("no control socket")
        trust = asyncio.ensure_future(control.run())
        try:
            crowd = _Crowd(path)
            for piece in pieces(data):
                await crowd.step(piece)
            await crowd.part()
            await _ask(path)
            await _written(bench, desk)
            await bench.check()
            if trust.done():
                trust.result()
        finally:
            trust.cancel()
            await control.stop()
            await bench.close()

    return lambda data: warp.run(lambda: story(data))


def _step(deed: int, client: int, body: bytes = b"\0") -> bytes:
    return bytes([deed << 4 | client]) + body


def _seeds() -> list[bytes]:
    listing, drop = (
        b'{"op":"letters.list","after":3}',
        b'{"op":"letters.drop","numbers":[%s],"why":"x"}',
    )
    again, upto = b'{"op":"letters.replay","numbers":[1,2]}', b'{"op":"letters.replay","up_to":9}'
    rows, state = b'{"op":"replay","first":1,"last":9}', b'{"op":"replay.state","replay_no":1}'
    status = b'{"op":"status"}'
    every = (listing, drop % b"3", again, upto, rows, state, status)
    wait, leave, end, read = _step(7, 0, b"\x40"), 4, 5, 6
    crowd = [_step(0, number, listing) for number in range(12)]
    halves = [_step(1, 0, drop[:20]), _step(1, 1, drop[:20]), wait, _step(leave, 1)]
    bad = (b"[", b"NaN", b'{"op":"letters.drop","numbers":[1],"why":"\\ud800"}', b"9" * 100)
    deep = (b"[", b'{"op":', b"9", b" ", b'"\\ud800', b"\n")
    return [
        as_pieces(*(_step(0, 0, one) for one in every), _step(end, 0), _step(read, 0)),
        as_pieces(*crowd, wait, *(_step(read, number) for number in range(12)), *crowd),
        as_pieces(_step(2, 0, b"["), _step(2, 1, b'{"a":'), _step(2, 2, b"9"), *halves),
        as_pieces(_step(3, 0, listing), _step(3, 0, listing), _step(3, 1, rows), wait, wait),
        as_pieces(_step(0, 0, drop % b"4,4"), _step(leave, 0), _step(3, 1, drop % b"5"), wait),
        as_pieces(*(_step(0, index, one) for index, one in enumerate(bad))),
        as_pieces(*(_step(10, index, one) for index, one in enumerate(deep))),
    ]


_WORDS = (
    b'"op"', b'"letters.list"', b'"letters.drop"', b'"letters.replay"', b'"replay"', b'"status"',
    b'"replay.state"', b'"numbers"', b'"up_to"', b'"why"', b'"after"', b'"first"', b'"last"',
    b"NaN", b"1e400", b"-1", b"9007199254740993", b"18446744073709551616", b"9" * 60, b"null",
    b"[", b"]", b"{", b"}", b"\n", b"\r", b"\0", b"\xff", b"\\ud800", b"\\u0000", b",", b'"', b":",
    b"\x00", b"\x10", b"\x20", b"\x30", b"\x40", b"\x50", b"\x60", b"\x70\x40",
)  # fmt: skip

TARGETS = (
    Target(
        "control",
        "Local users at the control socket",
        _make,
        _seeds,
        repair=lambda data: as_pieces(*pieces(data)),
        tokens=_WORDS,
        most_bytes=4096,
    ),
)
