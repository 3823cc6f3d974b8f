"""Writes the gateway.toml of a street: every interval that differs from the product is in it.

Rule: one factor scales what is a matter of days in a city to a run of a minute; radio and bus
physics are not scaled.
"""

from __future__ import annotations

from pathlib import Path

_TEMPLATE = """# Written by the virtual street; the product's intervals are divided by {scale:g}.
[gateway]
id = "{gateway}"
site = "{site}"

[store]
path = "{store}"
commit_interval_s = {commit_s}   # product: 120
commit_rows = 500

[uplink]
host = "127.0.0.1"
port = {port}
keepalive_s = 5

[ble]
enabled = {ble}
adapters = [{adapters}]
connect_timeout_s = 4
session_timeout_s = 8
deaf_after_s = 4   # product: 60

[backfill]
first_retry_s = {first_retry_s}   # product: 60
last_retry_s = {last_retry_s}   # product: 21600

[commands]
retry_s = 1
"""

_GROUP = """
[group]
lease_s = {lease_s}   # product: 600
"""

_BUS = """
[[bus]]
name = "street"
port = "{port}"
baudrate = {baudrate}
parity = "N"   # a pty has none
poll_interval_s = {poll_s}   # product: 60
timeout_ms = 400
quiet_ms = 100
"""


def write(
    path: Path,
    *,
    scale: float,
    site: str,
    port: int,
    adapters: tuple[str, ...],
    bus_port: Path | None,
    baudrate: int,
    nodes: list[str],
    commit_s: float | None = None,
    gateway: str = "gw1",
    store: str = "gateway.sqlite",
    lease_s: float | None = None,
) -> float:
    """Write the file; returns the commit interval in seconds.

    nodes: ready-made [[nodes]] tables; commit_s: another commit interval than the scaled one;
    lease_s: of a gateway in a group (None: it is alone).
    """
    commit_s = commit_s or max(0.2, round(120 / scale, 2))
    text = _TEMPLATE.format(
        scale=scale,
        gateway=gateway,
        store=store,
        site=site,
        commit_s=commit_s,
        port=port,
        ble="true" if adapters else "false",
        adapters=", ".join(f'"{name}"' for name in adapters or ("hci0",)),
        first_retry_s=max(0.2, round(60 / scale, 2)),
        last_retry_s=max(2.0, round(21600 / scale / 20, 2)),
    )
    if lease_s is not None:
        text += _GROUP.format(lease_s=lease_s)
    if bus_port is not None:
        poll_s = max(0.5, round(60 / scale, 2))
        text += _BUS.format(port=bus_port, baudrate=baudrate, poll_s=poll_s)
    path.write_text(text + "\n" + "\n".join(nodes))
    return commit_s
