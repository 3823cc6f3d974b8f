"""The commands with which an operator speaks to a gateway: letters, replay, status.

Rule: while the gateway runs they go over its socket; when it does not, the same commands take the
database for themselves, under the lock that keeps two from writing. Exit status: 0 done, 1 not
possible now, 2 a mistake in what was asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kerb_gateway import config as configuration
from kerb_gateway.clock import SystemClock
from kerb_gateway.commandmessage import is_text
from kerb_gateway.config import Config
from kerb_gateway.desk import Desk
from kerb_gateway.errors import ConfigError, StoreError
from kerb_gateway.service import client
from kerb_gateway.service.client import NotRunning, Refused
from kerb_gateway.service.control import user_name
from kerb_gateway.service.protocol import (
    LETTERS_MAX,
    NUMBER_MAX,
    BadRequest,
    DropLetters,
    ListLetters,
    ReplayLetters,
    ReplayRows,
    ReplayState,
    Request,
    Status,
)
from kerb_gateway.store import files
from kerb_gateway.store.claim import Claim
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.letters import Letters
from kerb_gateway.store.replays import Replays
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics

_LOOK_S = 0.3

letters_app = typer.Typer(
    help="Dead letters: messages that the broker refused for good.", no_args_is_help=True
)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The TOML configuration file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object for programs.")]
Numbers = Annotated[
    list[int], typer.Argument(help="Numbers from `letters list`.", min=1, show_default=False)
]


def fail(why: str, status: int) -> typer.Exit:
    """Say why on standard error; returns what ends the command."""
    print(f"kerb-gateway: {why}", file=sys.stderr)
    return typer.Exit(status)


def read(path: Path) -> Config:
    """Return the checked configuration, or end with its mistakes."""
    try:
        return configuration.load(path)[0]
    except ConfigError as error:
        raise fail(f"{path}: " + "; ".join(error.mistakes), 2) from None


def _bounded(field: str, *numbers: int) -> None:
    """End the command at a number that is larger than any row's."""
    for number in numbers:
        if number > NUMBER_MAX:
            raise fail(f"{field} = {number}: at most {NUMBER_MAX}", 2)


class Counter:
    """Where requests go: to the running gateway, or to the database itself."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.alone = False  # the last answer was given without a gateway

    def ask(self, request: Request) -> dict[str, Any]:
        """Return the answer's fields, or end the command with a sentence."""
        try:
            return client.ask(self._config.socket_path, request)
        except NotRunning:
            return self._alone(request)
        except Refused as error:
            raise fail(str(error), 1) from None

    def _alone(self, request: Request) -> dict[str, Any]:
        self.alone = True
        try:
            return asyncio.run(self._with_the_file(request))
        except (StoreError, BadRequest) as error:
            raise fail(str(error), 1) from None

    async def _with_the_file(self, request: Request) -> dict[str, Any]:
        path = self._config.store.path
        if not files.is_file(path):
            raise StoreError(f"{path}: there is no such file, and no gateway runs")
        claim = Claim(path)
        if not claim.take():
            raise StoreError(f"{path}: in use by a process that does not answer at its socket")
        store = Store(path, mends=False)
        try:
            await store.open()
            try:
                return await self._desk(store, await self._ledger(store)).answer(request, _me())
            finally:
                await store.close()
        finally:
            claim.give_back()

    async def _ledger(self, store: Store) -> Ledger:
        names = self._config.gateway
        payloads = NativePayloads(Topics(names.site, names.id), store.gw_epoch)
        return await Ledger.load(store, payloads, [], _silent)

    def _desk(self, store: Store, ledger: Ledger) -> Desk:
        letters = Letters(store, ledger, SystemClock())
        return Desk(letters, Replays(store, ledger), ledger.commit)


def _me() -> str:
    return user_name(os.getuid())


def _silent(event: str, **fields: Any) -> None:
    """A command's own answer says it."""


@letters_app.command("list")
def list_letters(config: ConfigPath, as_json: AsJson = False) -> None:
    """List the dead letters, oldest first."""
    counter = Counter(read(config))
    letters: list[dict[str, Any]] = []
    while True:
        after = letters[-1]["outbox_no"] if letters else 0
        some = counter.ask(ListLetters(after=after))["letters"]
        letters += some
        if len(some) < LETTERS_MAX:
            break
    if as_json:
        print(json.dumps({"letters": letters}))
    elif not letters:
        print("no dead letters")
    else:
        _show(letters)


def _show(letters: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE, padding=0)
    columns = ("outbox_no", "kind", "reason", "id", "bytes", "topic")
    for name in columns:
        table.add_column(name, overflow="fold")
    for letter in letters:
        table.add_row(*("" if letter[name] is None else str(letter[name]) for name in columns))
    Console().print(table)


@letters_app.command("replay")
def replay_letters(
    config: ConfigPath,
    numbers: Annotated[
        list[int] | None, typer.Argument(help="Numbers from `letters list`.", min=1)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that there are now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, under new outbox numbers."""
    if bool(numbers) == every:
        raise fail("either numbers or --all", 2)
    _bounded("NUMBERS", *(numbers or []))
    counter = Counter(read(config))
    replayed: dict[str, int] = {}
    for request in _bunches(counter, numbers):
        some = counter.ask(request)["replayed"]
        replayed |= some
        if not some:
            break
    if as_json:
        print(json.dumps({"replayed": replayed}))
    else:
        print(f"{len(replayed)} replayed")
        for old, new in replayed.items():
            print(f"  {old} goes out again as {new}")


def _bunches(counter: Counter, numbers: list[int] | None) -> Iterator[ReplayLetters]:
    """Yield requests until all is asked for; what is refused meanwhile is not asked for again."""
    if numbers:
        chosen = sorted(set(numbers))
        for at in range(0, len(chosen), LETTERS_MAX):
            yield ReplayLetters(numbers=chosen[at : at + LETTERS_MAX])
        return
    last_no = counter.ask(ListLetters())["last_no"]
    while last_no:
        yield ReplayLetters(up_to=last_no)


@letters_app.command("drop")
def drop_letters(
    config: ConfigPath,
    numbers: Numbers,
    why: Annotated[str, typer.Option("--why", help="The reason, kept and said upstream.")],
    as_json: AsJson = False,
) -> None:
    """Give dead letters up for ever; upstream is told, and a row says who, when and why."""
    chosen = sorted(set(numbers))
    _bounded("NUMBERS", *chosen)
    if not 1 <= len(why) <= 200 or len(chosen) > LETTERS_MAX:
        raise fail(f"--why needs 1 to 200 characters; {LETTERS_MAX} letters at once", 2)
    if not is_text(why):
        raise fail(f"--why = {why!r}: is not UTF-8; say it in other characters", 2)
    answer = Counter(read(config)).ask(DropLetters(numbers=chosen, why=why))
    print(json.dumps(answer) if as_json else f"{len(answer['dropped'])} dropped")


def replay(
    config: ConfigPath,
    first: Annotated[int, typer.Option("--from", min=1, help="First outbox number.")],
    last: Annotated[int, typer.Option("--to", min=1, help="Last outbox number.")],
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Publish kept outbox rows once more, for a platform that has lost them."""
    _bounded("--from", first)
    _bounded("--to", last)
    counter = Counter(read(config))
    replay_no = counter.ask(ReplayRows(first=first, last=last))["replay_no"]
    state = counter.ask(ReplayState(replay_no=replay_no))
    if counter.alone:
        print("accepted: the gateway does it when it runs", file=sys.stderr)
    elif wait:
        state = _until_done(counter, replay_no, last - first + 1)
    if as_json:
        print(json.dumps(state))
        return
    print(f"{state['state']}: {state['published']} published, {state['not_kept']} not kept")
    for low, high in state["not_kept_ranges"]:
        print(f"  not kept: {low} to {high}")
    if state["letters"] or state["refused"]:
        print(f"  {state['letters']} are or were dead letters, {state['refused']} refused now")
    if state["still_queued"]:
        print("  on their way anyway: {} to {}".format(*state["still_queued"]))


def _until_done(counter: Counter, replay_no: int, total: int) -> dict[str, Any]:
    """Look on until the gateway has done it; Ctrl-C stops looking, not the gateway."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=total)
        while True:
            state = counter.ask(ReplayState(replay_no=replay_no))
            progress.update(task, completed=max(0, state["next_no"] - state["from"]))
            if state["state"] != "open":
                return state
            time.sleep(_LOOK_S)


def status(config: ConfigPath, as_json: AsJson = False) -> None:
    """Say how the running gateway is (exit status 1: it does not run)."""
    path = read(config).socket_path
    try:
        now = client.ask(path, Status())
    except (NotRunning, Refused) as error:
        if as_json:
            print(json.dumps({"running": False, "why": str(error)}))
        raise fail(str(error), 1) from None
    if as_json:
        print(json.dumps({"running": True} | now))
    else:
        _tell(now)


def _tell(now: dict[str, Any]) -> None:
    uplink, outbox, disk = now["uplink"], now["outbox"], now["disk"]
    state = "connected" if uplink["connected"] else "not connected"
    room = ", the broker has no room" if uplink["no_room"] else ""
    print(f"{now['site']}/{now['gateway']}: up {now['uptime_s']:.0f} s, epoch {now['gw_epoch']}")
    print(f"uplink: {uplink['host']}:{uplink['port']} {state}, MQTT {uplink['protocol']}{room}")
    print(
        f"outbox: {outbox['waiting']} waiting, {outbox['delivered']} delivered since the start, "
        f"{outbox['dead_letters']} dead letters, {outbox['replays_open']} replays open"
    )
    full = ", FULL" if disk["full"] else ""
    print(
        f"disk: {disk['used_bytes'] / 1e6:.1f} of {disk['max_bytes'] / 1e6:.0f} MB used, "
        f"{disk['free_bytes'] / 1e6:.0f} MB free{full}"
    )
    table = Table(box=box.SIMPLE, padding=0)
    for name in ("node", "role", "heard", "last", "in gaps", "lost", "backlog", "tail"):
        table.add_column(name, no_wrap=True)
    for node in now["nodes"]:
        age = node["contact_age_s"]
        heard = "not since the start" if age is None else f"{age:.0f} s ago"
        backlog = "" if node["backlog"] is None else str(node["backlog"])
        numbers = (str(node[name]) for name in ("last_seq", "in_gaps", "lost"))
        tail = "unknown" if node["tail"] else ""
        tail = "restored: waits for a session" if node["held"] else tail
        table.add_row(node["node"], node["role"], heard, *numbers, backlog, tail)
    Console().print(table)
    for name, value in now["counters"].items():
        print(f"{value:>10}  {name}")
