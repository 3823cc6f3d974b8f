"""The loss ledger as a person reads it: every number in one column, and nothing left over."""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from kerb_gateway.model import Loss
from kerb_gateway.store import report
from kerb_tools import losses
from kerb_wire import records
from parts import NODE_ID, Parts, heard


async def story(path: Path) -> None:
    """Deliver 1 to 3, refuse 4, queue 5 and 9, lose 6 and 7, leave 8 open, then a lost tail."""
    parts = await Parts.open(path)
    stream = await parts.stream()
    outbox = parts.ledger.outbox
    for seq in (1, 2, 3, 4):
        parts.ingest.advert(heard(seq))
    await parts.ingest.commit()
    for message in await outbox.after(0, 10):
        if message.outbox_no == 4:
            parts.ledger.bury(message, "0x87")
            await parts.ingest.commit()
        outbox.ended(message.outbox_no)
    for seq in (5, 9):
        parts.ingest.advert(heard(seq))
    lost = records.pack_lost(6, 7, 2)
    parts.ingest.record(stream, lost, via="backfill", auth="session")
    parts.ledger.add_loss(Loss(stream, 10, None, "tail unknown"), parts.clock.now())
    await parts.ingest.commit()
    await parts.store.close()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = losses.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_every_number_stands_in_one_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(story(tmp_path / "gateway.sqlite"))
    status, out = run(capsys, str(tmp_path), "--json")
    answer: dict[str, Any] = json.loads(out)
    account = answer["streams"][0]
    assert status == 0
    assert answer["unexplained"] == 0
    assert {name: account[name] for name in account if name not in ("node", "epoch")} == {
        "last_seq": 9,
        "delivered": 3,
        "queued": 2,
        "refused": 1,
        "in_gaps": 1,
        "elsewhere": 0,
        "lost": 2,
    }
    ranges = [(one["first_seq"], one["last_seq"]) for one in answer["losses"]]
    assert ranges == [(6, 7), (10, None)]
    assert answer["losses"][1]["reason"] == "tail unknown"


def test_the_table_names_node_range_and_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(story(tmp_path / "gateway.sqlite"))
    status, out = run(capsys, str(tmp_path / "gateway.sqlite"), "--node", NODE_ID)
    assert status == 0
    assert NODE_ID in out
    assert "tail unknown" in out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("update streams set stored = stored - 1", ": 1 not explained!"),
        ("update streams set last_seq = last_seq + 2", ": 2 not explained!"),
    ],
)
def test_numbers_that_do_not_add_up_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    asyncio.run(story(tmp_path / "gateway.sqlite"))
    with sqlite3.connect(tmp_path / "gateway.sqlite") as connection:
        connection.execute(change)
    status, out = run(capsys, str(tmp_path))
    assert status == 1
    assert says in " ".join(out.split())


def test_mistakes_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, str(tmp_path))
    assert (status, "there is no such file" in out) == (2, True)
    (tmp_path / "gateway.sqlite").write_bytes(b"x" * 5000)
    status, out = run(capsys, str(tmp_path))
    assert (status, "not a gateway's database" in out) == (2, True)
    (tmp_path / "gateway.sqlite").unlink()
    asyncio.run(story(tmp_path / "gateway.sqlite"))
    status, out = run(capsys, str(tmp_path), "--node", "FF:FF:FF:FF:FF:FF")
    assert (status, "no such node" in out) == (2, True)


def test_a_path_that_cannot_be_looked_at_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "gateway.sqlite"):
        said = run(capsys, str(place))
        assert said == (2, f"kerb losses: {place}: File name too long\n")


def test_since_goes_by_the_clock_that_never_jumps(tmp_path: Path) -> None:
    """What was declared before NTP came is dated by the boot's anchor, not by the wrong clock."""
    asyncio.run(story(tmp_path / "gateway.sqlite"))
    with sqlite3.connect(tmp_path / "gateway.sqlite") as db:
        db.execute("delete from gateway_boots")
        db.execute("insert into gateway_boots values (1, 'one', 0)")
        db.execute("insert into clock_anchors values (9, 1, 50000, 1800000050000, 10)")
        db.execute(
            "update losses set boot_id = 'one', boottime_ms = 20000, wall_ms = 5, "
            "wall_quality = 'none' where loss_no = 1"
        )
        db.execute(
            "update losses set boot_id = 'two', wall_ms = 6, wall_quality = 'none' "
            "where loss_no = 2"
        )
    with report.opened(tmp_path / "gateway.sqlite") as connection:
        first, second = report.losses(connection)
        assert (first.wall_ms, first.wall_quality) == (1800000020000, "anchored")
        assert (second.wall_ms, second.wall_quality) == (6, "none")
        since = report.losses(connection, None, 1800000020001)
        assert [row.wall_quality for row in since] == ["none"]  # of unknown time: never left out
        assert len(report.losses(connection, None, 1800000020000)) == 2


@pytest.mark.parametrize("text", ["nobody", "a4cf12\udcff00001", ""])
def test_what_can_be_no_node_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        losses.main([str(tmp_path), "--node", text])
    assert ended.value.code == 2
    assert "12 hex digits, such as a4cf12a50000" in capsys.readouterr().err


def test_since_takes_spans_and_times() -> None:
    assert losses.since_wall_ms("2h", 10_000.0) == 2_800_000
    assert losses.since_wall_ms("1970-01-01T00:00:07+00:00", 0.0) == 7000
    assert losses.since_wall_ms("999999999d", 0.0) < 0
    for text in ("yesterday", "0001-01-01"):
        with pytest.raises(argparse.ArgumentTypeError, match="30m, 6h, 2d"):
            losses.since_wall_ms(text, 0.0)


@pytest.mark.parametrize("digits", [10, 400, 5000])
def test_an_endless_span_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: int
) -> None:
    with pytest.raises(SystemExit) as ended:
        losses.main([str(tmp_path), "--since", "9" * digits + "d"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--since" in said
    assert "9d': more than 9 digits; without --since every loss is shown" in said
