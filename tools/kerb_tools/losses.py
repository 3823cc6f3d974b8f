"""kerb losses: what became of every reading's number, from a gateway's database.

For each node: delivered, queued, refused by the broker, still in open gaps, and declared lost with
ranges and reasons. The file may be in use; it is only read. Exit status 1 when the numbers of a
node do not add up, which must never happen.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from pathlib import Path

from kerb_gateway.errors import StoreError
from kerb_gateway.store import files, report
from rich import box
from rich.console import Console
from rich.table import Table

from kerb_tools.parser import new as parser_of

_DURATION = re.compile(r"(\d+)([smhd])\Z")
_DIGITS_MAX = 9
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def since_wall_ms(text: str, now_s: float) -> int:
    """Return the Unix time in ms that `30m`, `6h`, `2d` or an ISO date and time mean."""
    match = _DURATION.match(text)
    if match:
        if len(match[1]) > _DIGITS_MAX:
            raise argparse.ArgumentTypeError(
                f"{text!r}: more than {_DIGITS_MAX} digits; without --since every loss is shown"
            )
        return int((now_s - int(match[1]) * _UNIT_S[match[2]]) * 1000)
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):  # the first year may have no Unix time
        raise argparse.ArgumentTypeError(
            f"{text!r}: a span such as 30m, 6h, 2d, or a time such as 2026-03-01T12:00"
        ) from None


def _node_id(text: str) -> str:
    """Return a node's name as the database has it; argparse's error if it can be none."""
    node_id = text.lower().replace(":", "")
    if not re.fullmatch("[0-9a-f]{12}", node_id):
        raise argparse.ArgumentTypeError(f"{text!r}: 12 hex digits, such as a4cf12a50000")
    return node_id


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    parser = parser_of(
        "kerb losses",
        __doc__,
        "kerb losses /var/lib/kerbstone/gateway.sqlite",
        "kerb losses run/20261124-225014 --node a4cf12a50000 --since 2d --json",
    )
    parser.add_argument("database", type=Path, help="the gateway's SQLite file, or a run's folder")
    parser.add_argument("--node", metavar="ID", type=_node_id, help="only this node")
    parser.add_argument(
        "--since",
        metavar="T",
        type=lambda text: since_wall_ms(text, time.time()),
        help="only losses declared since: 30m, 6h, 2d, or 2026-03-01T12:00; by the gateway's "
        "clock that never jumps where an anchor ties it to wall time; of unknown time: all",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    chosen = parser.parse_args(arguments)
    path = chosen.database
    try:
        if files.is_folder(path):
            path = path / "gateway.sqlite"
        with report.opened(path) as connection:
            streams = report.streams(connection, chosen.node)
            losses = report.losses(connection, chosen.node, chosen.since)
    except StoreError as error:
        print(f"kerb losses: {error}", file=sys.stderr)
        return 2
    if chosen.node is not None and not streams:
        print(f"kerb losses: --node {chosen.node}: no such node in {path}", file=sys.stderr)
        return 2
    wrong = [one for one in streams if one.unexplained]
    if chosen.json:
        print(
            json.dumps(
                {
                    "streams": report.as_json(streams),
                    "losses": report.as_json(losses),
                    "unexplained": sum(one.unexplained for one in wrong),
                }
            )
        )
    else:
        _show(streams, losses)
    return 1 if wrong else 0


def _show(streams: list[report.StreamRow], losses: list[report.LossRow]) -> None:
    console = Console()
    account = Table(title="where every number is", box=box.SIMPLE, padding=0)
    names = ["node", "epoch", "numbers", "delivered", "queued", "refused", "in gaps", "lost"]
    grouped = any(one.elsewhere for one in streams)
    for name in names + ["elsewhere"] * grouped:
        account.add_column(name, justify="left" if name == "node" else "right", no_wrap=True)
    for one in streams:
        numbers: tuple[int, ...] = (
            one.epoch,
            one.last_seq,
            one.delivered,
            one.queued,
            one.refused,
            one.in_gaps,
            one.lost,
        )
        numbers += (one.elsewhere,) * grouped
        account.add_row(one.node, *map(str, numbers))
    console.print(account)
    for one in streams:
        if one.unexplained:
            console.print(f"{one.node} epoch {one.epoch}: {one.unexplained} not explained!")
    if not losses:
        console.print("nothing was declared lost")
        return
    table = Table(title="declared lost", box=box.SIMPLE, padding=0)
    for name in ("node", "epoch", "from", "to", "count", "reason", "declared"):
        table.add_column(name, no_wrap=True)
    for loss in losses:
        count = "?" if loss.last_seq is None else str(loss.last_seq - loss.first_seq + 1)
        last = "open" if loss.last_seq is None else str(loss.last_seq)
        if loss.closed_seq is not None:
            count, last = "0", f"closed at {loss.closed_seq}"
        table.add_row(
            loss.node, str(loss.epoch), str(loss.first_seq), last, count, loss.reason, _when(loss)
        )
    console.print(table)


def _when(loss: report.LossRow) -> str:
    if loss.wall_ms is None:
        return "unknown"
    moment = datetime.datetime.fromtimestamp(loss.wall_ms / 1000, datetime.UTC)
    text = moment.strftime("%Y-%m-%d %H:%M:%SZ")
    known = loss.wall_quality in ("ntp", "anchored")
    return text if known else f"{text}?"  # nobody keeps the clock right
