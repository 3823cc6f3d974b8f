"""Target: what the air and a node's answers bring to ingest, in any order.

Rule: never an error for what is on the air; and after every input each number of every stream is
stored once, lost or in a gap.

Pieces, their first byte modulo 5: 0 an advert sealed with the right key (counter, objects), 1
service data as it is, 2 a record of an authenticated answer, 3 an epoch and its newest number, 4
a commit.
"""

from __future__ import annotations

import struct

from kerb_gateway.crypto import new_ecb
from kerb_gateway.model import Heard
from kerb_wire import advert, bthome, keys, records
from kerb_wire.errors import RemoteFault
from kerb_wire.provisioning import address_of

from kerb_tools.fuzz import warp
from kerb_tools.fuzz.both.wire_targets import pieces
from kerb_tools.fuzz.gateway_bench import EPOCH, KEY, NODE_ID, NODES, Bench, Benches
from kerb_tools.fuzz.target import Run, Target
from kerb_tools.fuzz.wire_seeds import RECORDS, as_pieces

_ADDRESS = address_of(bytes.fromhex(NODE_ID))
_TEXT = ":".join(f"{octet:02X}" for octet in _ADDRESS)
_ECB = new_ecb(keys.advert_key(new_ecb, KEY, EPOCH))


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


async def _take(bench: Bench, kind: int, body: bytes) -> None:
    stream = bench.ledger.newest_stream(NODE_ID)
    if kind < 2:
        data = bthome.seal(_ECB, _ADDRESS, _number(body), body[4:]) if kind == 0 else body
        bench.ingest.advert(Heard(_TEXT, data, -60, "hci0", bench.clock.boottime_ms()))
    elif kind == 2 and stream is not None:
        try:
            bench.ingest.record(stream, body, via="backfill", auth="session")
        except RemoteFault:
            pass  # a damaged record ends a session, and nothing more
    elif kind == 3:
        epoch = EPOCH + (body[0] % 3 if body else 0)
        await bench.ingest.epoch(NODES[0], epoch, _number(body[1:]))
    elif kind == 4:
        await bench.ingest.commit()


def _make() -> Run:
    benches = Benches()

    async def story(data: bytes) -> None:
        bench = await benches.open()
        try:
            await bench.ingest.epoch(NODES[0], EPOCH, 0)
            for piece in pieces(data):
                await _take(bench, piece[0] % 5, piece[1:])
            await bench.check()
        finally:
            await bench.close()

    return lambda data: warp.run(lambda: story(data))


def _advert(seq: int, distance_mm: int = 1000) -> bytes:
    record = records.pack_fill(1, seq, seq * 10, distance_mm, 2, 0, 200, 90, 0, 7, 7, 1, 0)
    return b"\x00" + struct.pack("<I", seq) + advert.objects_of(records.unpack(record), EPOCH)


def _seeds() -> list[bytes]:
    adverts = [_advert(seq) for seq in (1, 2, 6, 6, 5000, 9)]
    answers = [
        b"\x02" + records.pack_fill(1, seq, 9, 1234, 3, 0, -85, 90, 0, 7, 7, 1, 3)
        for seq in (3, 5, 3)
    ]
    lost = b"\x02" + records.pack_lost(4, 4, 0)
    far = b"\x02" + records.pack_lost(20, 30, 1)
    epoch = b"\x03\x01" + struct.pack("<I", 12)
    return [
        as_pieces(*adverts),
        as_pieces(*adverts[:3], *answers, lost, b"\x04", adverts[1]),
        as_pieces(adverts[2], b"\x04", lost, epoch, far, answers[0], _advert(2, 999)),
        as_pieces(*(b"\x02" + one for one in RECORDS)),
        as_pieces(b"\x01" + bthome.seal(_ECB, _ADDRESS, 7, b"\x01\x02"), _advert(0)),
    ]


TARGETS = (Target("air", "Adverts and records in any order, into ingest", _make, _seeds),)
