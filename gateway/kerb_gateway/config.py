"""The configuration file: TOML, checked as a whole before anything starts.

Rule: every mistake of a file is listed at once, with the field, the value and the way out;
unknown keys are refused; secrets come from files or the environment and are never printed.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
)

from kerb_gateway.errors import ConfigError

_KEY = re.compile(r"[0-9a-fA-F]{32}\Z")
_SECRET_MAX_BYTES = 4096
_HOST_MAX_BYTES = 253  # RFC 1035, 3.1, without the lengths of the first label and of the root
# What lies beside the database under its name, and must stay there.
_STORE_ENDS = ("", "-wal", "-shm", "-journal", ".lock", ".ballast", ".suspect", ".restoring")

SEGMENT = r"^[A-Za-z0-9_-]{1,64}$"
_NODE_ID = r"^[0-9a-f]{12}$"
# What a pattern asks for, in words.
_IN_WORDS = {
    SEGMENT: "1 to 64 letters, digits, - and _ (it becomes a part of topics)",
    _NODE_ID: "12 hex digits in small letters, such as a4cf12a50000 (esptool read-mac shows them)",
}

Segment = Annotated[str, Field(pattern=SEGMENT)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _possible(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no file can have a zero byte in its name")
    return path


FilePath = Annotated[Path, AfterValidator(_possible)]


def _resolvable(host: str) -> str:
    """Refuse what no resolver is ever asked: its thread would end in an error, for ever anew."""
    if not host.isprintable() or " " in host:
        raise ValueError("no host has a blank or an unprintable character in its name")
    try:
        name = host.encode("idna")
    except UnicodeError:
        raise ValueError(
            "no host can have that name: between two dots stand 1 to 63 characters"
        ) from None
    if len(name) > _HOST_MAX_BYTES:
        raise ValueError(f"{len(name)} bytes as it is sent: at most {_HOST_MAX_BYTES}")
    return host


Host = Annotated[str, Field(min_length=1, max_length=_HOST_MAX_BYTES), AfterValidator(_resolvable)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GatewayPart(_Part):
    """Who this gateway is; both names are segments of every topic."""

    id: Segment
    site: Segment


class StorePart(_Part):
    """Where readings are kept, for how long, and how long they may wait for a COMMIT."""

    path: FilePath
    commit_interval_s: float = Field(120.0, gt=0, le=3600)
    commit_rows: int = Field(500, ge=1, le=10000)
    ballast_mb: int = Field(8, ge=0, le=1024)
    keep_days: float = Field(90.0, gt=0, le=3650)
    max_mb: int = Field(1024, ge=16, le=1_000_000)
    keep_letters: int = Field(10000, ge=0, le=1_000_000)


class UplinkPart(_Part):
    """The broker upstream."""

    host: Host
    port: Port = 1883
    username: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    in_flight: int = Field(50, ge=1, le=1000)
    batch_rows: int = Field(64, ge=1, le=500)
    replay_rows_s: float = Field(200.0, gt=0, le=100_000)
    keepalive_s: int = Field(30, ge=5, le=600)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"


class BlePart(_Part):
    """Bluetooth LE."""

    enabled: bool = True
    adapters: list[str] = Field(default_factory=lambda: ["hci0"], min_length=1, max_length=8)
    scanning: Literal["auto", "active", "passive"] = "auto"
    connect_timeout_s: float = Field(10.0, gt=0, le=60)
    session_timeout_s: float = Field(10.0, gt=0, le=60)
    deaf_after_s: float = Field(60.0, ge=1, le=3600)
    wrong_mics: int = Field(8, ge=1, le=1000)
    wrong_mics_window_s: float = Field(3600.0, ge=1, le=86400)


class BackfillPart(_Part):
    """How patiently a node is asked for what is missing."""

    first_retry_s: float = Field(60.0, gt=0)
    last_retry_s: float = Field(21600.0, gt=0)
    door_s: float = Field(2.0, gt=0, le=20)


class CommandsPart(_Part):
    """How commands travel to lamps."""

    retry_s: float = Field(5.0, gt=0, le=600)


class BusPart(_Part):
    """An RS-485 bus with Modbus RTU."""

    name: Segment
    port: FilePath
    baudrate: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 19200
    parity: Literal["N", "E", "O"] = "E"
    poll_interval_s: float = Field(60.0, gt=0, le=3600)
    timeout_ms: int = Field(500, ge=20, le=10000)
    quiet_ms: int = Field(200, ge=0, le=10000)


class GeometryPart(_Part):
    """The container under the transducer."""

    shape: Literal["box", "cylinder"]
    empty_distance_mm: int = Field(ge=100, le=10000)
    full_distance_mm: int = Field(ge=0, le=10000)


class NodesMqttPart(_Part):
    """The gateway's own broker, through which Wi-Fi nodes send."""

    enabled: bool = False
    host: Host = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    window: int = Field(2000, ge=20, le=20000)
    keepalive_s: int = Field(30, ge=5, le=600)
    # paho makes a table of properties for each MQTT 5 message, which costs more than all the rest
    # of reading it; the bound that Receive Maximum gives is kept by not reading.
    protocol: Literal["3.1.1", "5"] = "3.1.1"


class NodePart(_Part):
    """A node and its key."""

    node_id: str = Field(pattern=_NODE_ID)
    role: Literal["bin", "lamp", "bay"]
    name: str | None = Field(None, max_length=64)
    link: Literal["ble", "modbus", "mqtt"] = "ble"
    bus: Segment | None = None
    unit: int | None = Field(None, ge=1, le=247)
    key_file: Path | None = None
    key_env: str | None = None
    geometry: GeometryPart | None = None
    silent_after_s: float | None = Field(None, ge=1, le=2_592_000)


class ControlPart(_Part):
    """The local socket for the command line; it lies beside the database unless it is named."""

    enabled: bool = True
    socket: FilePath | None = None


class WatchPart(_Part):
    """When a node counts as silent."""

    silent_after_s: float = Field(21600.0, ge=1, le=2_592_000)


class GroupPart(_Part):
    """Several gateways that hear the same nodes; without this table a gateway is alone.

    lease_s must be the same at all of them.
    """

    lease_s: float = Field(600.0, ge=1, le=86400)
    unheard_s: float = Field(7200.0, ge=1, le=604800)
    backup: bool = False


class LogPart(_Part):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Config(_Part):
    """A whole configuration file."""

    gateway: GatewayPart
    store: StorePart
    uplink: UplinkPart
    ble: BlePart = BlePart()
    backfill: BackfillPart = BackfillPart()
    commands: CommandsPart = CommandsPart()
    group: GroupPart | None = None
    nodes_mqtt: NodesMqttPart = NodesMqttPart()
    bus: list[BusPart] = Field(default_factory=list, max_length=16)
    nodes: list[NodePart] = Field(default_factory=list, max_length=10000)
    log: LogPart = LogPart()
    control: ControlPart = ControlPart()
    watch: WatchPart = WatchPart()

    @property
    def socket_path(self) -> Path:
        """Where the running gateway listens for its command line."""
        path = self.store.path
        return self.control.socket or path.with_name(path.name + ".sock")


class Secrets(BaseModel):
    """What the configuration only points to."""

    model_config = ConfigDict(frozen=True)

    keys: dict[str, SecretBytes]
    password: SecretStr | None = None
    nodes_password: SecretStr | None = None


def load(path: Path) -> tuple[Config, Secrets]:
    """Return the checked configuration and its secrets; ConfigError lists every mistake."""
    table = _read(path)
    mistakes: list[str] = []
    config: Config | None = None
    try:
        config = Config.model_validate(table)
    except ValidationError as error:
        mistakes.extend(_explain(one, table) for one in error.errors())
    mistakes.extend(_cross_checks(table))
    mistakes.extend(_socket_check(table, path.parent))
    keys, missing = _keys(table, path.parent)
    mistakes.extend(missing)
    password, wrong = _password(table.get("uplink"), path.parent)
    mistakes.extend(wrong)
    nodes_password, wrong = _password(table.get("nodes_mqtt"), path.parent, "nodes_mqtt")
    mistakes.extend(wrong)
    if mistakes or config is None:
        raise ConfigError(mistakes)
    return _absolute(config, path.parent), Secrets(
        keys=keys, password=password, nodes_password=nodes_password
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (ValueError, RecursionError) as error:  # not TOML, not text, or nested without end
        raise ConfigError([f"{path}: not TOML: {error}"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error


def _absolute(config: Config, base: Path) -> Config:
    """Resolve the store's and the socket's path against the file's own folder."""
    store = config.store.model_copy(update={"path": base / config.store.path})
    control = config.control
    if control.socket is not None:
        control = control.model_copy(update={"socket": base / control.socket})
    return config.model_copy(update={"store": store, "control": control})


def _explain(error: Any, table: dict[str, Any]) -> str:
    """Return one mistake as: field = value: what is wrong; the way out."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{where}: is missing; it has no default"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key{_nearest(error['loc'])}"
    pattern = error.get("ctx", {}).get("pattern")
    said = error["msg"].removeprefix("Value error, ")  # of a check of our own
    said = said[:1].lower() + said[1:]
    return f"{where} = {error['input']!r}: {_IN_WORDS.get(pattern, said)}"


def _nearest(location: tuple[Any, ...]) -> str:
    """Suggest the key that was probably meant."""
    parts: dict[str, type[BaseModel]] = {
        "gateway": GatewayPart,
        "store": StorePart,
        "uplink": UplinkPart,
        "ble": BlePart,
        "backfill": BackfillPart,
        "commands": CommandsPart,
        "group": GroupPart,
        "nodes_mqtt": NodesMqttPart,
        "bus": BusPart,
        "nodes": NodePart,
        "log": LogPart,
        "control": ControlPart,
        "watch": WatchPart,
        "geometry": GeometryPart,
    }
    owners = [part for part in location[:-1] if isinstance(part, str)]
    model = parts.get(owners[-1], Config) if owners else Config
    close = difflib.get_close_matches(str(location[-1]), list(model.model_fields), n=1)
    known = ", ".join(model.model_fields)
    return f"; did you mean {close[0]}?" if close else f"; known here: {known}"


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _cross_checks(table: dict[str, Any]) -> list[str]:
    """Return what single fields cannot show: doubles, missing partners, impossible containers."""
    nodes, buses = _dicts(table.get("nodes")), _dicts(table.get("bus"))
    mistakes = _group_checks(table) + _bus_checks(buses)
    for node_id, number in Counter(str(node.get("node_id")) for node in nodes).items():
        if number > 1:
            mistakes.append(
                f"nodes: node_id = {node_id!r} stands {number} times; it must be unique"
            )
    names = [bus.get("name") for bus in buses]
    units: Counter[tuple[str, str]] = Counter()  # as text: a wrong value may be a list
    for index, node in enumerate(nodes):
        where = f"nodes.{index}"
        if node.get("link") == "modbus":
            if node.get("unit") is None:
                mistakes.append(
                    f"{where}.unit: is missing; a node on a bus needs a unit, 1 to 247"
                )
            if node.get("bus") not in names:
                mistakes.append(f"{where}.bus = {node.get('bus')!r}: no [[bus]] has that name")
            units[(repr(node.get("bus")), repr(node.get("unit")))] += 1
        if node.get("role") == "lamp" and node.get("link", "ble") == "ble":
            mistakes.append(
                f"{where}.link: a lamp is on a bus; it needs link = 'modbus', bus and unit"
            )
        if node.get("link") == "mqtt" and not _enabled(table.get("nodes_mqtt")):
            mistakes.append(f"{where}.link = 'mqtt': needs [nodes_mqtt] with enabled = true")
        mistakes.extend(_container(where, node.get("geometry")))
    for (bus, unit), number in units.items():
        if number > 1 and unit != "None":
            mistakes.append(f"nodes: unit = {unit} stands {number} times on bus {bus}")
    return mistakes


def _bus_checks(buses: list[dict[str, Any]]) -> list[str]:
    """Two buses cannot share a name, by which nodes find them, nor a port."""
    return [
        f"bus: {key} = {value} stands {number} times; it must be unique"
        for key in ("name", "port")
        for value, number in Counter(repr(bus.get(key)) for bus in buses if key in bus).items()
        if number > 1
    ]


def _group_checks(table: dict[str, Any]) -> list[str]:
    gateway = table.get("gateway")
    named = gateway.get("id") if isinstance(gateway, dict) else None
    if "group" in table and named == "group":
        return ["gateway.id = 'group': stands for the whole group in topics; name it otherwise"]
    return []


def _socket_check(table: dict[str, Any], base: Path) -> list[str]:
    """Refuse a socket that has the name of a file of the database, by whichever way it is said."""
    database, socket = _text_at(table, "store", "path"), _text_at(table, "control", "socket")
    if database is None or socket is None:
        return []
    place, named = os.path.realpath(base / database), os.path.realpath(base / socket)
    if named not in {place + end for end in _STORE_ENDS}:
        return []
    return [
        f"control.socket = {socket!r}: is a file of the database that store.path names; "
        "name another, or leave it out"
    ]


def _text_at(table: dict[str, Any], part: str, key: str) -> str | None:
    """Return the name of a file that can be one."""
    found = table.get(part)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) and "\0" not in value else None


def _enabled(part: Any) -> bool:
    return isinstance(part, dict) and part.get("enabled") is True


def _container(where: str, geometry: Any) -> list[str]:
    if not isinstance(geometry, dict):
        return []
    full, empty = geometry.get("full_distance_mm"), geometry.get("empty_distance_mm")
    if isinstance(full, int) and isinstance(empty, int) and full >= empty:
        return [
            f"{where}.geometry.full_distance_mm = {full}: must be below "
            f"empty_distance_mm = {empty}"
        ]
    return []


def _keys(table: dict[str, Any], base: Path) -> tuple[dict[str, SecretBytes], list[str]]:
    """Read the node keys; a key's text never enters a message."""
    keys: dict[str, SecretBytes] = {}
    mistakes = []
    for index, node in enumerate(_dicts(table.get("nodes"))):
        where = f"nodes.{index}"
        text, mistake = _secret(node, "key", base, where)
        if mistake:
            mistakes.append(mistake)
        elif text is None:
            mistakes.append(f"{where}: needs key_file or key_env; kerb provision makes the file")
        elif not _KEY.match(text):
            mistakes.append(f"{where}: its key is not 32 hex digits; kerb provision makes one")
        else:
            keys[str(node.get("node_id"))] = SecretBytes(bytes.fromhex(text))
    return keys, mistakes


def _password(part: Any, base: Path, where: str = "uplink") -> tuple[SecretStr | None, list[str]]:
    if not isinstance(part, dict):
        return None, []
    text, mistake = _secret(part, "password", base, where)
    return (None if text is None else SecretStr(text)), ([mistake] if mistake else [])


def _secret(table: dict[str, Any], name: str, base: Path, where: str) -> tuple[str | None, str]:
    """Return the text behind NAME_file or NAME_env and a mistake ("" if there is none)."""
    file, variable = table.get(f"{name}_file"), table.get(f"{name}_env")
    if isinstance(file, str):
        try:
            with (base / file).open("rb") as source:
                data = source.read(_SECRET_MAX_BYTES + 1)
            text = data.decode().strip()
        except (OSError, ValueError) as error:  # ValueError: not text, or no name of a file
            why = error.strerror if isinstance(error, OSError) else "not text"
            return None, f"{where}.{name}_file = {file!r}: cannot be read: {why}"
        if len(data) > _SECRET_MAX_BYTES:
            return None, f"{where}.{name}_file = {file!r}: more than {_SECRET_MAX_BYTES} bytes"
        return text, ""
    if isinstance(variable, str):
        found = os.environ.get(variable)
        if found is None:
            return None, f"{where}.{name}_env = {variable!r}: the environment has no such variable"
        return found, ""
    return None, ""
