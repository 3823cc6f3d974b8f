"""The commands `backup` and `restore`: a copy of the database, and the way back.

Rule: a backup disturbs no gateway, running or not; a restore needs the database for itself and
says at each end what is there now. Exit status: 0 done, 1 not possible now, 2 a mistake.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from kerb_gateway.commandmessage import is_text
from kerb_gateway.config import Config
from kerb_gateway.console import AsJson, ConfigPath, fail, read
from kerb_gateway.errors import CopyError, StoreError
from kerb_gateway.service import client
from kerb_gateway.service.client import NotRunning, Refused
from kerb_gateway.service.protocol import Backup, BackupState
from kerb_gateway.store import backup as copying
from kerb_gateway.store import files
from kerb_gateway.store import restore as restoring
from kerb_gateway.store.claim import Claim

_LOOK_S = 0.2

BackupFile = Annotated[Path, typer.Argument(help="The new file; never an existing one.")]
RestoreFile = Annotated[Path, typer.Argument(help="A file that `backup` has made.")]


def backup(file: BackupFile, config: ConfigPath, as_json: AsJson = False) -> None:
    """Copy the database to FILE, while the gateway runs or when it does not.

    A running gateway makes the file itself, with its own rights; Ctrl-C stops the looking on only.
    """
    checked = read(config)
    file = file.absolute()
    if not is_text(str(file)):
        raise fail(f"FILE = {str(file)!r}: is not UTF-8; choose another name", 2)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("backup", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        size = _made(checked, file, show)
    if as_json:
        print(json.dumps({"file": str(file), "bytes": size}))
    else:
        print(f"{file}: {size} bytes, complete and sound")


def _made(config: Config, file: Path, show: copying.Progress) -> int:
    """Make it and return its bytes, or end the command with a sentence."""
    try:
        state = client.ask(config.socket_path, Backup(file=str(file)))
        while state["state"] == "running":
            time.sleep(_LOOK_S)
            state = client.ask(config.socket_path, BackupState())
            show(state["pages_done"], state["pages"])
    except NotRunning:
        return _made_alone(config, file, show)
    except Refused as error:
        raise fail(str(error), 1) from None
    if state["state"] != "done" or state["file"] != str(file):
        raise fail(str(state["why"] or f"{file}: another backup was begun meanwhile"), 1)
    return int(state["bytes"])


def _made_alone(config: Config, file: Path, show: copying.Progress) -> int:
    try:
        return copying.take_closed(config.store.path, file, show)
    except (CopyError, StoreError) as error:
        raise fail(str(error), 1) from None


def restore(file: RestoreFile, config: ConfigPath, as_json: AsJson = False) -> None:
    """Put the backup FILE in the place of the database, while no gateway runs.

    The present database is kept under another name. docs/operations.md says what follows.
    """
    checked = read(config)
    database = checked.store.path
    try:
        there = files.is_file(file)
    except StoreError as error:
        raise fail(str(error), 2) from None
    if not there:
        raise fail(f"{file}: there is no such file", 2)
    claim = Claim(database)
    try:
        if not claim.take():
            raise fail(f"{database}: process {claim.holder()} has it: stop the gateway first", 1)
        names = {"site": checked.gateway.site, "gateway": checked.gateway.id}
        done = restoring.restore(database, file, names)
    except (CopyError, StoreError) as error:
        raise fail(f"not restored: {error}", 1) from None
    finally:
        claim.give_back()
    _tell(done, as_json)


def _tell(done: restoring.Restored, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"gw_epoch": done.gw_epoch, "before": done.before}
        print(json.dumps(fields | {"aside": None if done.aside is None else str(done.aside)}))
        return
    print(f"restored: gw_epoch {done.gw_epoch} follows {', '.join(done.before)}")
    if done.aside is not None:
        print(f"the database that was there is {done.aside}")
    print("each node's adverts are believed again after its next session")
