"""The control socket: private, bounded, and deaf to whatever is not a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateways import command, fill, write_config
from hypothesis import given, settings
from hypothesis import strategies as st
from kerb_gateway.desk import Desk
from kerb_gateway.errors import StoreError
from kerb_gateway.service import client, protocol
from kerb_gateway.service.control import ControlSocket, address, user_name
from kerb_gateway.service.protocol import BadRequest, GatewayCommand, ListLetters
from kerb_gateway.store.claim import Claim
from kerb_gateway.store.letters import Letters
from kerb_gateway.store.replays import Replays
from parts import Parts, log

GOOD = b'{"op":"letters.list"}'


@contextlib.asynccontextmanager
async def listening(folder: Path, **limits: float) -> AsyncIterator[Path]:
    """A control socket over a real store; yields its path."""
    parts = await Parts.open(folder / "g.sqlite")
    letters = Letters(parts.store, parts.ledger, parts.clock)
    desk = Desk(letters, Replays(parts.store, parts.ledger), parts.ingest.commit)
    path = folder / "g.sock"
    control = ControlSocket(path, desk.answer, log, **limits)
    assert await control.start()
    try:
        yield path
    finally:
        await control.stop()
        await parts.store.close()


async def said(path: Path, data: bytes, *, lines: int = 1) -> list[dict[str, Any]]:
    """Send bytes, half-close, and return the answers, at most `lines` of them."""
    with address(path) as short:
        reader, writer = await asyncio.open_unix_connection(short)
    answers = []
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        writer.write_eof()
        for _ in range(lines):
            line = await asyncio.wait_for(reader.readline(), 10)
            if line:
                answers.append(json.loads(line))
    writer.close()
    return answers


def test_only_its_owner_may_connect_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed,
            address(tmp_path / "g.sock") as short,
        ):
            killed.bind(short)  # its file outlives it
        async with listening(tmp_path) as path:
            mode = path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
            answer = await asyncio.to_thread(client.ask, path, ListLetters())
            assert answer == {"letters": [], "count": 0, "last_no": 0}
        assert not path.exists()
        with pytest.raises(client.NotRunning):
            client.ask(path, ListLetters())

    asyncio.run(story())


@pytest.mark.parametrize("name", ["g.sqlite", "notes"])
def test_only_a_socket_is_removed(tmp_path: Path, name: str) -> None:
    """The live database too is a file that a configuration can name."""
    said: list[tuple[str, str]] = []

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        (tmp_path / "notes").write_text("of a person")
        before = (tmp_path / name).stat()
        control = ControlSocket(
            tmp_path / name,
            Desk(
                Letters(parts.store, parts.ledger, parts.clock),
                Replays(parts.store, parts.ledger),
                parts.ingest.commit,
            ).answer,
            lambda event, **fields: said.append((event, fields["why"])),
        )
        assert not await control.start()
        await control.stop()
        assert (tmp_path / name).stat().st_ino == before.st_ino
        await parts.store.close()

    asyncio.run(story())
    assert said == [("no control socket", "another file has its name, and is never removed")]


def test_who_has_taken_the_sockets_name_keeps_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with listening(tmp_path) as path:
            path.unlink()
            path.write_text("of a person")
        assert path.read_text() == "of a person"

    asyncio.run(story())


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    async def story() -> None:
        folder = tmp_path / ("x" * 120)
        folder.mkdir()
        async with listening(folder) as path:
            assert (await asyncio.to_thread(client.ask, path, ListLetters()))["count"] == 0

    asyncio.run(story())


HOSTILE = [
    b"\n",
    b"{}\n",
    b"[]\n",
    b"\x00\xff\xfe\n",
    b'{"op":"letters.list","op":"letters.list"}\n',
    b'{"op":"letters.list","more":1}\n',
    b'{"op":"letters.list","after":-1}\n',
    b'{"op":"letters.list","after":"1"}\n',
    b'{"op":"letters.list","after":1e400}\n',
    b'{"op":"letters.list","after":' + b"9" * 5000 + b"}\n",
    b'{"op":"letters.drop","numbers":[1],"why":"\\ud800"}\n',
    b'{"op":"letters.drop","numbers":[],"why":"x"}\n',
    b'{"op":"letters.replay"}\n',
    b'{"op":"rm -rf"}\n',
    b"[" * 16000 + b"\n",
    b"x" * 16385 + b"\n",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_request_is_refused_with_a_sentence(tmp_path: Path, line: bytes) -> None:
    async def story() -> None:
        async with listening(tmp_path) as path:
            (answer,) = await said(path, line)
            assert answer["ok"] is False
            assert answer["why"]
            assert (await said(path, GOOD + b"\n"))[0]["ok"] is True

    asyncio.run(story())


def test_lines_without_end_silence_and_crowds_cost_only_themselves(tmp_path: Path) -> None:
    async def story() -> None:
        async with listening(tmp_path, request_s=0.5) as path:
            assert await said(path, GOOD) == []  # no line's end: no request
            (flood,) = await said(path, b"x" * 2_000_000)
            assert "a line of more than" in flood["why"]
            many = await said(path, (GOOD + b"\n") * 1500, lines=1500)
            assert len(many) == 1000
            with address(path) as short:
                silent = [await asyncio.open_unix_connection(short) for _ in range(8)]
                late = await asyncio.open_unix_connection(short)
            answer = json.loads(await late[0].readline())
            assert "clients" in answer["why"]
            for reader, _ in silent:
                assert await asyncio.wait_for(reader.read(), 10) == b""  # their time is over
            assert (await said(path, GOOD + b"\n"))[0]["ok"] is True
            for _, writer in [*silent, late]:
                writer.close()

    asyncio.run(story())


def test_a_client_that_never_reads_is_left(tmp_path: Path) -> None:
    async def story() -> None:
        async with listening(tmp_path, request_s=0.5) as path:
            deaf = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            with address(path) as short:
                deaf.connect(short)
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(10):
                    while True:  # until it hangs up on us
                        await loop.sock_sendall(deaf, b"{}\n" * 1000)
            assert (await said(path, GOOD + b"\n"))[0]["ok"] is True
            deaf.close()

    asyncio.run(story())


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_request_or_a_sentence(line: bytes) -> None:
    for wanted in (protocol.Request, GatewayCommand):
        with contextlib.suppress(BadRequest):
            protocol.decode(line, wanted)
    named = protocol.command_id_of(line)
    assert named is None or 1 <= len(named) <= 64


def test_a_request_begun_is_finished_though_its_client_has_gone(tmp_path: Path) -> None:
    async def story() -> None:
        begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slowly(request: Any, who: str) -> dict[str, Any]:
            assert who == user_name(os.getuid())
            begun.set()
            await go.wait()
            done.set()
            return {}

        control = ControlSocket(tmp_path / "c.sock", slowly, log, request_s=1, answer_s=0.2)
        assert await control.start()
        asking = asyncio.ensure_future(said(control._path, GOOD + b"\n"))
        await asyncio.wait_for(begun.wait(), 10)
        (answer,) = await asking
        assert "still being tried" in answer["why"]
        stopping = asyncio.ensure_future(control.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        go.set()
        await asyncio.wait_for(stopping, 10)
        assert done.is_set()

    asyncio.run(story())


def test_a_store_that_cannot_be_trusted_ends_the_gateway(tmp_path: Path) -> None:
    async def story() -> None:
        async def broken(request: Any, who: str) -> dict[str, Any]:
            raise StoreError("disk I/O error")

        control = ControlSocket(tmp_path / "c.sock", broken, log)
        assert await control.start()
        running = asyncio.ensure_future(control.run())
        (answer,) = await said(tmp_path / "c.sock", GOOD + b"\n")
        assert answer["why"] == "disk I/O error"
        with pytest.raises(StoreError):
            await asyncio.wait_for(running, 10)
        await control.stop()

    asyncio.run(story())


def test_what_the_system_refuses_a_request_is_an_answer(tmp_path: Path) -> None:
    """An OSError of the request's own, where one of the connection means that nobody listens."""

    async def story() -> None:
        async def looks(request: Any, who: str) -> dict[str, Any]:
            return {"size": (tmp_path / ("x" * 300)).stat().st_size}

        control = ControlSocket(tmp_path / "c.sock", looks, log)
        assert await control.start()
        (answer,) = await said(tmp_path / "c.sock", GOOD + b"\n")
        assert answer["why"] == f"{tmp_path / ('x' * 300)}: File name too long"
        await control.stop()

    asyncio.run(story())


# --- one writer ---

_HOLDER = (
    "import sys, pathlib; from kerb_gateway.store.claim import Claim; "
    "c = Claim(pathlib.Path(sys.argv[1])); print(c.take(), flush=True); sys.stdin.read()"
)


def test_two_processes_never_write_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "g.sqlite"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    claim = Claim(path)
    assert not claim.take()
    with pytest.raises(StoreError, match="writes to it already"):
        asyncio.run(claim.wait(0.3))
    holder.kill()
    holder.wait(10)
    assert claim.take()
    claim.give_back()


def test_a_second_gateway_ends_with_a_sentence(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "gateway.sqlite")
    assert claim.take()
    config = write_config(tmp_path)
    second = subprocess.run(
        [sys.executable, "-m", "kerb_gateway", "run", "--config", str(config)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    claim.give_back()
    assert second.returncode == 1
    assert "writes to it already" in second.stderr
    assert "Traceback" not in second.stderr
    assert not (tmp_path / "gateway.sqlite").exists()


def test_a_command_line_beside_a_process_that_does_not_answer(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "gateway.sqlite", 1, buried=True))
    config = write_config(tmp_path)
    claim = Claim(tmp_path / "gateway.sqlite")
    assert claim.take()
    said = command(config, "letters", "replay", "--all", status=1)
    assert "does not answer at its socket" in said
    claim.give_back()
    assert command(config, "letters", "replay", "--all").startswith("1 replayed")
