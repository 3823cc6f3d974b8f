"""kerb provision: make a node's identity, its root key, and the gateway's entry for it.

The key is made here, on the host, and goes into two files only: the node's identity.bin and the
gateway's key file. Neither is ever printed.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from pathlib import Path

from kerb_gateway.config import SEGMENT
from kerb_wire import provisioning
from kerb_wire.errors import LocalFault
from kerb_wire.settings import SETTINGS, complaint, log_complaint
from kerb_wire.words import ROLES, code

from kerb_tools.parser import new as parser_of

_NODE_ID = re.compile(r"[0-9a-f]{12}\Z")


class Mistake(Exception):
    """Something that the person at the keyboard can mend."""


def write_node(
    out: Path, node_id: str, role: str, site: str, unit: int, settings: dict[str, int]
) -> Path:
    """Write OUT/nodes/ID/{identity.bin,settings.json} and OUT/keys/ID.key; return the folder.

    Raises Mistake if the node has been provisioned here before or a value is not allowed.
    """
    folder, key_file = out / "nodes" / node_id, out / "keys" / f"{node_id}.key"
    if key_file.exists():
        raise Mistake(f"{key_file} exists: this node has a key; remove it to make a new one")
    key = os.urandom(16)
    try:
        blob = provisioning.pack(
            code(ROLES, role), unit, bytes.fromhex(node_id), key, site.encode()
        )
    except LocalFault as fault:
        raise Mistake(str(fault)) from None
    folder.mkdir(parents=True, exist_ok=True)
    key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, data in (
        (folder / "identity.bin", blob),
        (key_file, key.hex().encode() + b"\n"),
    ):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    return folder


def gateway_entry(node_id: str, role: str, unit: int, bus: str | None) -> str:
    """Return the [[nodes]] table that the gateway's configuration needs."""
    lines = ["[[nodes]]", f'node_id = "{node_id}"', f'role = "{role}"']
    if role == "lamp":
        lines += ['link = "modbus"', f'bus = "{bus or "street"}"', f"unit = {unit}"]
    lines.append(f'key_file = "keys/{node_id}.key"')
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "kerb provision",
        __doc__,
        "kerb provision --node-id a4cf12a50000 --role bin --site north",
        "kerb provision --node-id a4cf12a50100 --role lamp --unit 7 --bus street --site north",
    )
    parser.add_argument(
        "--node-id", required=True, help="the base MAC, 12 hex digits (esptool read-mac shows it)"
    )
    parser.add_argument("--role", required=True, choices=ROLES)
    parser.add_argument("--site", required=True, help="at most 24 bytes")
    parser.add_argument("--unit", type=int, default=0, help="Modbus unit of a lamp, 1 to 247")
    parser.add_argument("--bus", help="the bus's name in the gateway's configuration")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="a setting of the node, such as wake_interval_ms=600000",
    )
    parser.add_argument("--out", type=Path, default=Path("provisioned"), help="[%(default)s]")
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    return parser


def _settings(pairs: list[str]) -> dict[str, int]:
    settings = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            value = int(text)
        except ValueError:
            example = "wake_interval_ms=600000"
            raise Mistake(f"--set {pair}: NAME=NUMBER, such as {example}") from None
        wrong = complaint(name, value)
        if wrong is not None:
            close = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f"; did you mean {close[0]}?" if name not in SETTINGS and close else ""
            raise Mistake(f"--set {pair}: {wrong}{hint}")
        settings[name] = value
    _check_log(settings)
    return settings


def _check_log(settings: dict[str, int]) -> None:
    segments, rows = (
        settings.get(name, SETTINGS[name][0]) for name in ("log_segments", "log_rows")
    )
    wrong = log_complaint(segments, rows)
    if wrong is not None:
        raise Mistake(f"--set: {wrong}")


def main(arguments: list[str]) -> int:
    """Run the command; exit status 2 for a mistake."""
    options = _parser().parse_args(arguments)
    node_id = options.node_id.lower().replace(":", "")
    try:
        if not _NODE_ID.match(node_id):
            raise Mistake(f"--node-id {options.node_id}: 12 hex digits, such as a4cf12a50000")
        if options.role == "lamp" and not 1 <= options.unit <= 247:
            raise Mistake(f"--unit {options.unit}: a lamp needs a unit from 1 to 247")
        if options.bus is not None and not re.fullmatch(SEGMENT, options.bus):
            raise Mistake(f"--bus {options.bus!r}: 1 to 64 letters, digits, - and _")
        folder = write_node(
            options.out, node_id, options.role, options.site, options.unit, _settings(options.set)
        )
    except Mistake as error:
        print(f"kerb provision: {error}", file=sys.stderr)
        return 2
    entry = gateway_entry(node_id, options.role, options.unit, options.bus)
    if options.json:
        print(json.dumps({"node_id": node_id, "folder": str(folder), "gateway_entry": entry}))
    else:
        print(f"{folder}: identity.bin and settings.json, for the board")
        print(f"{options.out / 'keys' / node_id}.key: for the gateway, beside its gateway.toml\n")
        print(entry, end="")
    return 0
