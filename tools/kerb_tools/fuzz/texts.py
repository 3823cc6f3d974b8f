"""Targets that read text: a command's JSON, the configuration's TOML.

Rule: a person's mistake, or an enemy's cunning, ends in Malformed or ConfigError.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from kerb_gateway import commandmessage, config
from kerb_gateway.errors import ConfigError

from kerb_tools.fuzz.target import Broken, Run, Target

_COMMAND = {"command_id": "a-1", "level_pct": 40, "hold_s": 600, "ttl_s": 60, "fade_ms": 500}

_CONFIG = """\
[gateway]
id = "gw1"
site = "north"

[store]
path = "gateway.sqlite"
commit_interval_s = 120.5
keep_days = 90
max_mb = 1024

[uplink]
host = "127.0.0.1"
port = 1883
password_file = "key"
in_flight = 50
protocol = "auto"

[ble]
enabled = true
adapters = ["hci0"]
deaf_after_s = 60

[backfill]
first_retry_s = 60
last_retry_s = 21600

[[bus]]
name = "street"
port = "/dev/ttyUSB0"
baudrate = 19200
parity = "E"

[[nodes]]
node_id = "a4cf12000001"
role = "bin"
key_file = "key"
geometry = { shape = "box", empty_distance_mm = 2000, full_distance_mm = 300 }

[[nodes]]
node_id = "a4cf12000002"
role = "lamp"
link = "modbus"
bus = "street"
unit = 3
key_file = "key"
"""

_COMMON = (
    b"null", b"true", b"false", b"-1", b"0", b"1e400", b"1.5", b"NaN", b"inf", b"9" * 400, b'""',
    b"[]", b"{}", b'"', b"[", b"]", b"{", b"}", b",", b":", b"\\u0000", b"\\ud800", b"\xff", b"\0",
)  # fmt: skip
_COMMAND_WORDS = tuple(f'"{name}"'.encode() for name in _COMMAND)
_CONFIG_WORDS = (
    b"=", b"\n", b"[[", b"]]", b"'", b"nan", b"-inf", b"1979-05-27", b"0x_1", b"gateway", b"nodes",
    b"bus", b"geometry", b"key_file", b"key_env", b"password_env", b"PATH", b'"key"', b'"/"',
    b'"/dev/zero"', b"unit", b"link", b"node_id", b"uplink", b"store", b".",
)  # fmt: skip


def _commands() -> list[bytes]:
    bad = {"command_id": "x", "level_pct": "40", "extra": [1, {"a": None}]}
    least = _COMMAND | {"fade_ms": None}
    good = [json.dumps(one).encode() for one in (_COMMAND, least, bad)]
    return [*good, b"[]", b'{"a":1,"a":2}']


def _parse(data: bytes) -> object:
    fields = commandmessage.parse(data)
    for name in ("level_pct", "hold_s", "ttl_s", "fade_ms"):
        if type(fields[name]) is not int:
            raise Broken(f"{name} is no whole number")
    if len(fields) != len(_COMMAND):
        raise Broken("a field too many, or too few")
    return fields


def _load() -> Run:
    folder = tempfile.TemporaryDirectory(prefix="kerb-fuzz-")
    path = Path(folder.name) / "gateway.toml"
    (Path(folder.name) / "key").write_text("00112233445566778899aabbccddeeff\n")

    def run(data: bytes, folder: tempfile.TemporaryDirectory[str] = folder) -> object:
        path.write_bytes(data)
        try:
            loaded, _ = config.load(path)
        except ConfigError as error:
            if not error.mistakes or "00112233" in str(error):
                raise Broken("no mistake named, or a secret in one") from None
            raise
        paths = [loaded.store.path, *(bus.port for bus in loaded.bus)]
        if any("\0" in str(one) for one in paths):
            raise Broken("a path that no file can have")
        return loaded

    return run


TARGETS = (
    Target(
        "command",
        "A command message's JSON",
        lambda: _parse,
        _commands,
        allowed=(commandmessage.Malformed,),
        tokens=_COMMON + _COMMAND_WORDS,
        most_bytes=6000,
    ),
    Target(
        "config",
        "The configuration file's TOML",
        _load,
        lambda: [_CONFIG.encode(), _CONFIG[:120].encode()],
        allowed=(ConfigError,),
        tokens=_COMMON + _CONFIG_WORDS,
        most_bytes=4000,
    ),
)
