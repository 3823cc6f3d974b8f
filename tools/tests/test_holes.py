"""Which numbers a consumer asks for again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kerb_tools.demo import holes


def arrived(gateway: str, gw_epoch: str, *numbers: int, leaf: str = "event") -> dict[str, Any]:
    """Return a subscriber's row; several numbers: a batch."""
    messages = [{"gw_epoch": gw_epoch, "outbox_no": number} for number in numbers]
    payload = messages if leaf == "batch" else messages[0]
    return {"topic": f"kerb/v1/test/{gateway}/n1/{leaf}", "payload": payload}


def test_what_lies_between_is_missing_in_whatever_order_it_came() -> None:
    rows = [arrived("g", "a", 7), arrived("g", "a", 3, 4, leaf="batch"), arrived("g", "a", 9)]
    assert holes.of("g", rows) == [(1, 2), (5, 6), (8, 8)]


def test_each_gateway_and_each_epoch_counts_for_itself() -> None:
    rows = [arrived("g", "a", 1), arrived("g", "a", 9), arrived("h", "x", 4)]
    rows += [arrived("g", "b", 100), arrived("g", "b", 102), arrived("gateway", "z", 50)]
    assert holes.of("g", rows) == [(101, 101)]
    assert holes.of("h", rows) == [(1, 3)]
    assert holes.of("other", rows) == []


def test_what_has_no_number_is_no_hole_and_half_a_line_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "subscriber.jsonl"
    offline = {"topic": "kerb/v1/test/g/availability", "payload": None, "text": "offline"}
    whole = [{"type": "begin", "t_s": 1.0}, offline, arrived("g", "a", 1)]
    file.write_text("".join(json.dumps(row) + "\n" for row in whole) + '{"topic": "ke')
    assert holes.of("g", holes.rows(file)) == []


def test_a_command_is_answered_by_its_result_only() -> None:
    rows = [arrived("g", "a", 1), arrived("g", "a", 2, leaf="result")]
    rows[0]["payload"]["command_id"] = "c1"
    rows[1]["payload"]["command_id"] = "c2"
    assert holes.answered(rows) == {"c2"}
