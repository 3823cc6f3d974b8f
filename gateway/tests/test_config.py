"""The configuration: all mistakes at once, secrets never shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kerb_gateway import config
from kerb_gateway.errors import ConfigError

GOOD = """
[gateway]
id = "gw1"
site = "north"
[store]
path = "gateway.sqlite"
[uplink]
host = "127.0.0.1"
[[bus]]
name = "street"
port = "/dev/ttyUSB0"
[[nodes]]
node_id = "a4cf12000001"
role = "lamp"
link = "modbus"
bus = "street"
unit = 1
key_env = "KEY_ONE"
"""

EIGHT_MISTAKES = """
[gateway]
id = "gw.1"
[store]
path = "gateway.sqlite"
commit_intervall_s = 5
[uplink]
host = "127.0.0.1"
port = 70000
[ble]
scanning = "sometimes"
[[nodes]]
node_id = "a4cf12000001"
role = "lamp"
link = "modbus"
bus = "nowhere"
unit = 1
key_env = "NO_SUCH_VARIABLE"
[[nodes]]
node_id = "a4cf12000002"
role = "bin"
key_file = "missing.key"
[nodes.geometry]
shape = "box"
empty_distance_mm = 900
full_distance_mm = 1000
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_ONE", "00112233445566778899aabbccddeeff")
    checked, secrets = config.load(write(tmp_path, GOOD))
    assert checked.store.commit_interval_s == 120
    assert checked.store.path == tmp_path / "gateway.sqlite"
    assert secrets.keys["a4cf12000001"].get_secret_value()[0] == 0
    assert "0011" not in repr(secrets) + repr(checked)


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, EIGHT_MISTAKES))
    text = "\n".join(caught.value.mistakes)
    for part in (
        "gateway.id = 'gw.1'",
        "gateway.site: is missing",
        "commit_intervall_s: no such key; did you mean commit_interval_s?",
        "uplink.port = 70000",
        "ble.scanning = 'sometimes'",
        "nodes.0.bus = 'nowhere'",
        "NO_SUCH_VARIABLE",
        "missing.key",
        "full_distance_mm = 1000: must be below empty_distance_mm = 900",
    ):
        assert part in text, text
    assert len(caught.value.mistakes) == 9


def test_the_command_line_lists_them_without_a_traceback(tmp_path: Path) -> None:
    path = write(tmp_path, EIGHT_MISTAKES)
    command = [sys.executable, "-m", "kerb_gateway", "check", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "9 mistakes" in answer.stderr
    assert "Traceback" not in answer.stderr
    answer = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert len(json.loads(answer.stdout)["mistakes"]) == 9


def test_a_bad_key_is_never_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_ONE", "not-a-key-but-a-secret")
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, GOOD))
    assert "not-a-key" not in str(caught.value)


def test_a_group_has_defaults_and_its_name_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_ONE", "00" * 16)
    alone, _ = config.load(write(tmp_path, GOOD))
    assert alone.group is None
    grouped, _ = config.load(write(tmp_path, GOOD + "[group]\n"))
    assert grouped.group is not None
    assert (grouped.group.lease_s, grouped.group.backup) == (600, False)
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, GOOD.replace("gw1", "group") + "[group]\nlease = 5\n"))
    assert [line.split(":")[0] for line in caught.value.mistakes] == [
        "group.lease", "gateway.id = 'group'"
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["", "-wal", "-shm", ".lock", ".ballast"])
@pytest.mark.parametrize("way", ["", "./", "sub/../", "link/"])
def test_the_control_socket_is_no_file_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, end: str
) -> None:
    monkeypatch.setenv("KEY_ONE", "00" * 16)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    named = f"{way}gateway.sqlite{end}"
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, f'{GOOD}[control]\nsocket = "{named}"\n'))
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"control.socket = {named!r}: is a file of the database")
    checked, _ = config.load(write(tmp_path, f'{GOOD}[control]\nsocket = "{named}.sock"\n'))
    assert checked.socket_path.name == f"gateway.sqlite{end}.sock"


_LONG = ".".join(["x" * 49] * 6)  # 299 characters
_NO_HOSTS = {
    "broker..example": "between two dots",
    "x" * 64: "between two dots",
    "\u00ad": "blank",
    "": "at least 1",
    " ": "blank",
    "bro ker": "blank",
    "a\u0000b": "blank",
    "a\tb": "blank",
    _LONG: "at most 253",
    ".".join(["ü" * 20] * 10): "at most 253",
}


@pytest.mark.parametrize("host", _NO_HOSTS)
@pytest.mark.parametrize("part", ["uplink", "nodes_mqtt"])
def test_a_host_that_cannot_be_one_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, host: str
) -> None:
    monkeypatch.setenv("KEY_ONE", "00" * 16)
    line = f"host = {json.dumps(host)}"
    text = GOOD.replace('host = "127.0.0.1"', line)
    if part == "nodes_mqtt":
        text = f"{GOOD}[nodes_mqtt]\n{line}\n"
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text))
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"{part}.host = {host!r}: ")
    assert _NO_HOSTS[host] in mistake


@pytest.mark.parametrize("host", ["broker", "brücke.example", "a.example.", "::1", "fe80::1%eth0"])
def test_names_and_addresses_are_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("KEY_ONE", "00" * 16)
    checked, _ = config.load(write(tmp_path, GOOD.replace("127.0.0.1", host)))
    assert checked.uplink.host == host


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        config.load(write(tmp_path, "[gateway]\nid = \n"))


@pytest.mark.parametrize("name", ["gateway.toml", "nothing.toml"])
def test_a_missing_file_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "no" / name)


@pytest.mark.parametrize("link", ['link = "modbus"\n', 'link = "ble"\n', ""])
def test_a_lamp_that_no_bus_polls_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setenv("KEY_ONE", "00112233445566778899aabbccddeeff")
    path = write(tmp_path, GOOD.replace('link = "modbus"\n', link))
    if "modbus" in link:
        config.load(path)
        return
    with pytest.raises(ConfigError, match=r"nodes\.0\.link: a lamp is on a bus"):
        config.load(path)


def test_two_buses_share_neither_name_nor_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two with one name the first would never be opened."""
    monkeypatch.setenv("KEY_ONE", "00" * 16)
    twice = '[[bus]]\nname = "south"\nport = "/dev/ttyUSB1"\n' * 2
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, GOOD + twice))
    assert caught.value.mistakes == [
        "bus: name = 'south' stands 2 times; it must be unique",
        "bus: port = '/dev/ttyUSB1' stands 2 times; it must be unique",
    ]
