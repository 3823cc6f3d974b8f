"""What other gateways have heard: epochs proved by the MIC, gaps that are closed elsewhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from kerb_gateway.ingest import ACCEPTED, HELD_BACK
from kerb_gateway.model import Gap, Node, Stream
from kerb_gateway.peers import Progress, pack_progress, unpack_progress
from kerb_gateway.progress import Deliveries, Told, close_elsewhere
from kerb_wire.limits import JUMP_LIMIT
from parts import EPOCH, KEY, NODE_ID, Parts, heard

NODE = Node(1, NODE_ID, "bin", KEY)


def progress(last_seq: int, delivered_seq: int, *, generation: int = 1, epoch: int = EPOCH):
    return Progress(NODE_ID, generation, epoch, last_seq, delivered_seq)


def stream(last_seq: int, *gaps: tuple[int, int], stored: int = 0) -> Stream:
    return Stream(1, NODE, EPOCH, last_seq, stored, 0, [Gap(*gap) for gap in gaps])


def test_a_told_epoch_is_taken_when_an_advert_proves_it(tmp_path: Path) -> None:
    """No session, no tail unknown: the gateway that does not own the node stores what it hears."""

    async def story() -> None:
        path = tmp_path / "g.sqlite"
        parts = await Parts.open(path)
        await parts.ingest.epoch(parts.nodes[0], 5, 3)  # an epoch of before
        await parts.ingest.commit()
        assert parts.ingest.advert(heard(9)).kind == "refused"
        parts.ingest.elsewhere.hear_of(progress(7, 4))
        assert parts.ingest.advert(heard(9, key=bytes(16))).kind == "refused"  # proves nothing
        assert (NODE_ID, EPOCH) not in parts.ledger.streams
        outcome = parts.ingest.advert(heard(9))
        assert outcome.kind == ACCEPTED
        assert NODE_ID not in parts.ingest.suspect
        assert outcome.stream is not None
        assert outcome.stream.ranges() == ((5, 7), (8, 8))
        assert parts.ingest.advert(heard(6)).kind == HELD_BACK
        parts.ingest.elsewhere.hear_of(progress(9, 8))
        assert outcome.stream.ranges() == ()
        assert (outcome.stream.stored, outcome.stream.elsewhere) == (1, 8)
        assert outcome.stream.unexplained() == 0
        await parts.ingest.commit()
        assert await parts.column("select count(*) from losses") == [0]
        assert not [one for one in await parts.payloads() if one["kind"] == "alarm"]
        await parts.store.close()
        again = await Parts.open(path)
        assert again.ledger.streams[(NODE_ID, EPOCH)].elsewhere == 8
        assert again.ledger.streams[(NODE_ID, EPOCH)].unexplained() == 0
        await again.store.close()

    asyncio.run(story())


def test_the_owner_closes_the_gaps_of_an_epoch_before(tmp_path: Path) -> None:
    """Its outbox ended the old epoch's rows only when the node had a new one already."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        old = await parts.stream(3)
        assert parts.ingest.advert(heard(9)).kind == ACCEPTED
        assert old.ranges() == ((1, 3), (4, 8))
        said = Progress(NODE_ID, 1, 5, 2, 2, ((3, 1), (EPOCH, 6)))
        parts.ingest.elsewhere.hear_of(unpack_progress(NODE_ID, pack_progress(said)))
        assert old.ranges() == ((7, 8),)
        parts.ingest.elsewhere.hear_of(Progress(NODE_ID, 1, 5, 2, 2, ((EPOCH, 9),)))
        assert old.ranges() == ()
        assert old.unexplained() == 0
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize("older", [[[1]], [1], {}, [[1, -1]], [[1, True]], [[1, 2]] * 8])
def test_what_is_said_of_older_epochs_is_read_strictly(older: object) -> None:
    table = {"generation": 1, "epoch": 1, "last_seq": 1, "delivered_seq": 1, "older": older}
    with pytest.raises(ValueError, match=r"older|whole number"):
        unpack_progress(NODE_ID, json.dumps(table).encode())


def test_a_gateway_that_was_away_follows_the_owner_over_the_jump_limit(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        known = await parts.stream(3)
        far = 3 + JUMP_LIMIT + 500
        assert parts.ingest.advert(heard(far)).kind == "quarantined"
        parts.ingest.elsewhere.hear_of(progress(far - 1, far - 10))
        assert parts.ingest.advert(heard(far)).kind == ACCEPTED
        assert known.ranges() == ((far - 9, far - 1),)
        assert known.unexplained() == 0
        await parts.store.close()

    asyncio.run(story())


def test_a_new_owner_ends_the_epochs_that_the_old_one_spoke_of(tmp_path: Path) -> None:
    """It was restored, or is new: a session tells it of an epoch before it heard of another."""

    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        node = parts.nodes[0]
        parts.ingest.elsewhere.hear_of(Progress(NODE_ID, 1, 5, 9, 4, ((3, 2), (4, 0))))
        newest = await parts.stream(1)
        assert parts.ledger.newest_stream(NODE_ID) is newest
        told = parts.ledger.older_streams(newest)
        numbers = [(one.epoch, one.last_seq, one.elsewhere, one.unexplained()) for one in told]
        assert numbers == [(3, 2, 2, 0), (4, 0, 0, 0), (5, 9, 4, 0)]
        assert [(one.epoch, one.ranges()) for one in parts.ingest.ended(newest)] == [
            (5, ((5, 9),))
        ]
        again = await parts.ingest.epoch(node, EPOCH, 1)
        await parts.ingest.commit()
        assert again is newest
        said = [p for p in await parts.payloads() if p["kind"] == "loss"]
        assert [(p["epoch"], p["first_seq"], p["last_seq"], p["reason"]) for p in said] == [
            (3, 3, None, "tail unknown"),
            (4, 1, None, "tail unknown"),
            (5, 10, None, "tail unknown"),
        ]
        await parts.store.close()

    asyncio.run(story())


def test_an_owner_that_knows_the_epochs_says_nothing_twice(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        await parts.ingest.epoch(parts.nodes[0], 5, 9)
        parts.ingest.elsewhere.hear_of(Progress(NODE_ID, 2, EPOCH, 1, 1, ((5, 9),)))
        await parts.stream(1)
        await parts.ingest.commit()
        assert len(parts.ledger.streams) == 2
        said = [p for p in await parts.payloads() if p["kind"] == "loss"]
        assert [(p["epoch"], p["first_seq"]) for p in said] == [(5, 10)]
        await parts.store.close()

    asyncio.run(story())


def test_a_new_owner_need_not_fetch_what_the_old_one_delivered(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        parts.ingest.elsewhere.hear_of(progress(20, 15))
        known = await parts.stream(30)
        assert known.ranges() == ((16, 30),)
        assert known.unexplained() == 0
        await parts.store.close()

    asyncio.run(story())


def test_without_a_group_nothing_is_elsewhere(tmp_path: Path) -> None:
    async def story() -> None:
        parts = await Parts.open(tmp_path / "g.sqlite")
        known = await parts.stream(3)
        assert parts.ingest.advert(heard(7)).kind == ACCEPTED
        assert known.ranges() == ((1, 3), (4, 6))
        assert known.elsewhere == 0
        await parts.store.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("gaps", "delivered_seq", "left", "closed"),
    [
        ([(1, 5), (8, 9)], 0, [(1, 5), (8, 9)], 0),
        ([(1, 5), (8, 9)], 3, [(4, 5), (8, 9)], 3),
        ([(1, 5), (8, 9)], 8, [(9, 9)], 6),
        ([(1, 5), (8, 9)], 99, [], 7),
        ([], 99, [], 0),
    ],
)
def test_gaps_up_to_the_delivered_number_are_closed(
    gaps: list[tuple[int, int]], delivered_seq: int, left: list[tuple[int, int]], closed: int
) -> None:
    one = stream(10, *gaps)
    assert close_elsewhere(one, delivered_seq) == closed
    assert list(one.ranges()) == left
    assert one.elsewhere == closed


def test_acknowledged_is_not_delivered() -> None:
    """What is stored counts only once the outbox has passed every row that it had then."""
    one, deliveries = stream(5, stored=5), Deliveries()
    for _ in range(3):
        deliveries.look([one], outbox_last=20, outbox_done=0)
    assert deliveries.delivered(one) == 0
    for _ in range(3):
        deliveries.look([one], outbox_last=20, outbox_done=20)
    assert deliveries.delivered(one) == 5
    one.last_seq = one.stored = 8
    for done in (20, 21, 22):
        deliveries.look([one], outbox_last=23, outbox_done=done)
    assert deliveries.delivered(one) == 5
    for _ in range(3):
        deliveries.look([one], outbox_last=23, outbox_done=23)
    assert deliveries.delivered(one) == 8


def test_a_refused_row_counts_when_its_loss_record_has_gone_out() -> None:
    one, deliveries = stream(5, stored=5), Deliveries()
    for _ in range(3):
        deliveries.look([one], outbox_last=20, outbox_done=20)
    one.last_seq = one.stored = 7  # rows 21 and 22
    deliveries.look([one], outbox_last=22, outbox_done=20)
    deliveries.look([one], outbox_last=22, outbox_done=22)  # the look that counts seven
    deliveries.look([one], outbox_last=23, outbox_done=22)  # 22 was refused: 23 declares it
    deliveries.look([one], outbox_last=23, outbox_done=22)
    assert deliveries.delivered(one) == 5
    deliveries.look([one], outbox_last=23, outbox_done=23)
    assert deliveries.delivered(one) == 7


def test_the_newest_owner_names_the_epoch_and_delivered_numbers_only_rise() -> None:
    told = Told()
    told.take(progress(9, 5, generation=3, epoch=7))
    told.take(progress(4, 4, generation=2, epoch=6))
    newest = told.newest(NODE_ID)
    assert newest is not None
    assert newest.epoch == 7
    assert (told.last_seq(NODE_ID, 7), told.last_seq(NODE_ID, 6)) == (9, 0)
    told.take(progress(3, 2, generation=4, epoch=7))
    assert (told.delivered(NODE_ID, 7), told.delivered(NODE_ID, 6)) == (5, 4)
    for epoch in range(100, 120):
        told.take(progress(1, 1, generation=5, epoch=epoch))
    assert told.delivered(NODE_ID, 6) == 0  # the oldest go
    assert told.delivered(NODE_ID, 119) == 1
