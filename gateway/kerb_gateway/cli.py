"""kerb-gateway: run the gateway, or check its configuration.

Rule: a person's mistake ends in a clear list and exit status 2, never in a traceback.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from kerb_gateway import config as configuration
from kerb_gateway.console import letters_app, replay, status
from kerb_gateway.copies import backup, restore
from kerb_gateway.errors import ConfigError

app = typer.Typer(
    help="Kerbstone gateway: hears the nodes, buffers every reading, forwards it over MQTT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(letters_app, name="letters")
app.command()(replay)
app.command()(status)
app.command()(backup)
app.command()(restore)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The TOML configuration file.")]


@app.command()
def run(config: ConfigPath) -> None:
    """Run the gateway until SIGTERM; logs go to standard error."""
    from kerb_gateway.app import serve
    from kerb_gateway.logs import setup

    checked, secrets = _load(config)
    logger = setup(checked.log.level, checked.log.format)
    raise typer.Exit(asyncio.run(serve(checked, secrets, logger)))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The TOML configuration file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False,
) -> None:
    """Check a configuration file and list every mistake at once (exit status 2 if any)."""
    try:
        checked, _ = configuration.load(file)
    except ConfigError as error:
        if as_json:
            print(json.dumps({"file": str(file), "ok": False, "mistakes": error.mistakes}))
        else:
            _list(file, error.mistakes)
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps({"file": str(file), "ok": True, "mistakes": []}))
    else:
        print(f"{file}: good: {len(checked.nodes)} nodes, {len(checked.bus)} buses")


@app.command()
def schema() -> None:
    """Print the configuration's JSON Schema, for editors."""
    print(json.dumps(configuration.Config.model_json_schema(), indent=2))


@app.command()
def version() -> None:
    """Print the installed version."""
    print(installed_version("kerbstone"))


def _load(path: Path) -> tuple[configuration.Config, configuration.Secrets]:
    try:
        return configuration.load(path)
    except ConfigError as error:
        _list(path, error.mistakes)
        raise typer.Exit(2) from None


def _list(path: Path, mistakes: list[str]) -> None:
    number = len(mistakes)
    print(f"{path}: {number} mistake{'' if number == 1 else 's'}:", file=sys.stderr)
    for mistake in mistakes:
        print(f"  - {mistake}", file=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    app()
