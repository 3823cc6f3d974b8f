"""Contract: bundles and their answers, on both interpreters."""

from aes import new_ecb
from kerb_wire import bundle, records
from kerb_wire.errors import LocalFault, RemoteFault
from kerb_wire.limits import BUNDLE_MAX_RECORDS, SEQ_MAX

ROOT = bytes(range(16))
EPOCH = 77
RECORDS = (
    records.pack_fill(1, 41, 9, 1234, 3, 0, -85, 90, 4, 7, 7, 1, 3),
    records.pack_lamp(2, 42, 10, 55, 1, 0, 5, 1, 3, 0),
    records.pack_lost(43, 50, 1),
)


def ecb(epoch=EPOCH):
    return new_ecb(bundle.bundle_key(new_ecb, ROOT, epoch))


def blame(function, *values):
    try:
        function(*values)
    except RemoteFault:
        return "remote"
    except LocalFault:
        return "local"
    return None


def test_a_bundle_reads_back():
    for count in range(1, len(RECORDS) + 1):
        sealed = bundle.seal(ecb(), EPOCH, count, RECORDS[:count])
        assert bundle.unseal(ecb(), sealed) == (EPOCH, list(RECORDS[:count]))
    most = bundle.seal(ecb(), EPOCH, SEQ_MAX, [RECORDS[0]] * BUNDLE_MAX_RECORDS)
    assert len(most) == bundle.BUNDLE_MAX_BYTES


def test_the_golden_bundle():
    wanted = "014d00000005000000147850c4a8ffbdaac5301be59a3e62a35d61b68ab6be2f98f815e72b2735a293"
    assert bundle.seal(ecb(), EPOCH, 5, RECORDS[:1]).hex() == wanted
    answer_ecb = new_ecb(bundle.ack_key(new_ecb, ROOT, EPOCH))
    assert bundle.seal_ack(answer_ecb, EPOCH, 41).hex() == "014d00000029000000b8ae3f9d196ce5d6"


def test_a_bundle_refuses_every_changed_bit_and_every_cut():
    sealed = bundle.seal(ecb(), EPOCH, 5, RECORDS[:2])
    for bit in range(8 * len(sealed)):
        broken = bytearray(sealed)
        broken[bit // 8] ^= 1 << (bit % 8)
        assert blame(bundle.unseal, ecb(), bytes(broken)) == "remote", bit
    for size in range(len(sealed)):
        assert blame(bundle.unseal, ecb(), sealed[:size]) == "remote", size
    assert blame(bundle.unseal, ecb(), sealed + bytes(24)) == "remote"
    assert blame(bundle.unseal, ecb(), bytes(bundle.BUNDLE_MAX_BYTES + 24)) == "remote"
    assert blame(bundle.unseal, ecb(EPOCH + 1), sealed) == "remote"


def test_a_bundle_refuses_a_callers_mistakes():
    for number, packed in (
        (0, RECORDS[:1]),
        (SEQ_MAX + 1, RECORDS[:1]),
        (1, []),
        (1, [RECORDS[0]] * (BUNDLE_MAX_RECORDS + 1)),
        (1, [RECORDS[0][:-1]]),
    ):
        assert blame(bundle.seal, ecb(), EPOCH, number, packed) == "local", number


def test_an_answer_is_the_gateways():
    answer_ecb = new_ecb(bundle.ack_key(new_ecb, ROOT, EPOCH))
    answer = bundle.seal_ack(answer_ecb, EPOCH, 41)
    row = bundle.open_ack(answer_ecb, answer)
    assert (row.epoch, row.seq) == (EPOCH, 41)
    for bit in range(8 * len(answer)):
        broken = bytearray(answer)
        broken[bit // 8] ^= 1 << (bit % 8)
        assert blame(bundle.open_ack, answer_ecb, bytes(broken)) == "remote", bit
    assert blame(bundle.open_ack, answer_ecb, answer[:-1]) == "remote"
    assert blame(bundle.open_ack, ecb(), answer) == "remote"


def test_a_records_event_is_found_without_unpacking():
    assert [records.event_of(one) for one in RECORDS] == [4, 5, 0]
