"""The set checker over two gateways' files: what one may lack, and each lie of either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kerb_check.verdict import judge
from test_checker import BIN, BURSTS, EPOCH, Rows, Run, fill

SECOND = "g2"
FETCHED = range(3, 7)  # what the second gateway has delivered too, by backfill


class GroupRun(Run):
    """A run that a second gateway heard as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stored_too: Rows = [
            self._payload(BIN, fill(seq)) | {"via": "backfill", "auth": "session"}
            for seq in FETCHED
        ]
        self.messages_too = [self._placed(row, n) for n, row in enumerate(self.stored_too, 1)]
        self.losses_too: Rows = []

    def gone(self, gateway: str) -> None:
        """Let a gateway be killed for good."""
        self.world.insert(-1, {"type": "gateway_gone", "gateway": gateway, "t_s": 500})

    def write(self, run: Path) -> None:
        super().write(run)
        path = run / "subscriber.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        more = [self._of_second(row, "reading") for row in self.messages_too]
        losses = self._numbered([row | {"kind": "loss"} for row in self.losses_too], 1000)
        more += [self._of_second(row, "event") for row in losses]
        self._lines(path, rows[:-1] + more + rows[-1:])
        self.stored = self.stored_too
        self._database(run / f"gateway-{SECOND}.sqlite")

    def _of_second(self, row: dict[str, Any], leaf: str) -> dict[str, Any]:
        message = self._message(row, leaf)
        return message | {"topic": message["topic"].replace("/g/", f"/{SECOND}/")}


def loss(seq: int, reason: str) -> dict[str, Any]:
    return {"node": BIN, "epoch": EPOCH, "first_seq": seq, "last_seq": seq, "reason": reason}


def nothing(run: GroupRun) -> None:
    pass


def first_died_with_what_the_second_fetched(run: GroupRun) -> None:
    run.gone("g")
    del run.messages[4]  # number 5: stored, never sent by the first


def second_died_with_what_the_first_sent(run: GroupRun) -> None:
    run.gone(SECOND)
    del run.messages_too[1]


def second_found_the_ring_overwritten(run: GroupRun) -> None:
    run.losses_too.append(loss(9, "overwritten"))


HONEST = [
    (nothing, 4, 0),
    (first_died_with_what_the_second_fetched, 3, 0),
    (second_died_with_what_the_first_sent, 3, 0),
    (second_found_the_ring_overwritten, 4, 1),
]


@pytest.mark.parametrize(("story", "across", "by_one"), HONEST)
def test_honest_groups_are_good(
    tmp_path: Path, story: Callable[[GroupRun], None], across: int, by_one: int
) -> None:
    run = GroupRun()
    story(run)
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]
    assert verdict.figures["gateways"] == 2
    assert verdict.figures["duplicates"] == 0
    assert verdict.figures["duplicates_across_gateways"] == across
    assert verdict.figures["lost_by_one_gateway"] == by_one
    assert verdict.figures["readings_delivered_unique"] == BURSTS + 4


def died_with_what_nobody_else_has(run: GroupRun) -> None:
    run.gone("g")
    del run.messages[8]


def alive_and_never_sent(run: GroupRun) -> None:
    del run.messages[4]


def second_alive_and_never_sent(run: GroupRun) -> None:
    del run.messages_too[1]


def second_sends_another_content(run: GroupRun) -> None:
    for rows in (run.stored_too, run.messages_too):
        rows[1]["distance_mm"] += 7


def second_sends_what_it_never_stored(run: GroupRun) -> None:
    del run.stored_too[2]


def second_stores_twice(run: GroupRun) -> None:
    run.stored_too.append(dict(run.stored_too[0]))


def second_repeats_with_another_content(run: GroupRun) -> None:
    run.messages_too.append(dict(run.messages_too[0], uptime_s=9999))


def second_calls_unused_what_the_first_sent(run: GroupRun) -> None:
    run.losses_too.append(loss(9, "unused"))


def second_declares_lost_what_it_sent_itself(run: GroupRun) -> None:
    run.losses_too.append(loss(4, "overwritten"))


def both_take_it_for_delivered_elsewhere(run: GroupRun) -> None:
    del run.stored[8], run.messages[8]


LIES: list[tuple[Callable[[GroupRun], None], str]] = [
    (died_with_what_nobody_else_has, f"unaccounted: {BIN}/9/9"),
    (alive_and_never_sent, f"not delivered: {BIN}/9/5"),
    (second_alive_and_never_sent, f"not delivered: {BIN}/9/4"),
    (second_sends_another_content, f"altered: {BIN}/9/4: repeated with"),
    (second_sends_what_it_never_stored, f"not stored: {BIN}/9/5"),
    (second_stores_twice, f"stored twice: {BIN}/9/3"),
    (second_repeats_with_another_content, f"altered: {BIN}/9/3: repeated with"),
    (second_calls_unused_what_the_first_sent, f"false loss: {BIN}/9/9: declared unused"),
    (second_declares_lost_what_it_sent_itself, f"false loss: {BIN}/9/4: declared overwritten"),
    (both_take_it_for_delivered_elsewhere, f"unaccounted: {BIN}/9/9"),
]


@pytest.mark.parametrize(("lie", "found"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_each_lie_of_a_group_is_found(
    tmp_path: Path, lie: Callable[[GroupRun], None], found: str
) -> None:
    run = GroupRun()
    lie(run)
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert not verdict.good
    assert any(found in str(one) for one in verdict.findings), verdict.findings


def test_a_second_file_that_is_no_database_breaks_the_run(tmp_path: Path) -> None:
    GroupRun().write(tmp_path)
    (tmp_path / f"gateway-{SECOND}.sqlite").write_bytes(b"not a database" * 100)
    assert judge(tmp_path).broken
