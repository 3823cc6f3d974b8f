"""Every field of every layout, out of range both ways, and the callers' other mistakes.

Rule: the cases come from the Layout tables, so a new field is tested as soon as it is there.
"""

import struct

from kerb_wire import (
    advert,
    bthome,
    frame,
    gatt,
    keys,
    messages,
    provisioning,
    records,
    registers,
    segment,
    settings,
)
from kerb_wire.errors import LocalFault, RemoteFault
from kerb_wire.words import FAULTS, FAULTS_MASK, fault_names

_SIZES = {"u8": 1, "u16": 2, "u32": 4, "i16": 2}


def layouts():
    """Return every layout that kerb_wire packs or unpacks by."""
    found = [messages.LAYOUTS[kind] for kind in sorted(messages.LAYOUTS)]
    found += [records.FILL_LAYOUT, records.LAMP_LAYOUT, records.LOST_LAYOUT]
    return found + [advert.RAW_LAYOUT, advert.READING_LAYOUT, provisioning.IDENTITY_LAYOUT]


def valid(field):
    if field.fixed_bytes is not None:
        return bytes(field.fixed_bytes)
    return bytes(field.low) if field.kind == "rest" else field.low


def wrong_values(field):
    """Return values of the right and of the wrong type that `field` must refuse."""
    if field.fixed_bytes is not None:
        return [bytes(field.fixed_bytes - 1), bytes(field.fixed_bytes + 1), 7, None, "text"]
    if field.kind == "rest":
        short = [bytes(field.low - 1)] if field.low else []
        return short + [bytes(field.high + 1), 7, None, "text"]
    edges = [value for value in (field.low - 1, field.high + 1) if value != field.extra]
    return edges + ["7", None, 1.5, b"\x01", True]


def blamed(function, *values):
    """Return the LocalFault or RemoteFault that `function` must raise."""
    try:
        function(*values)
    except (LocalFault, RemoteFault) as fault:
        return fault
    raise AssertionError(f"{values!r} was taken")


def test_every_field_refuses_what_the_caller_may_not_send():
    for layout in layouts():
        values = [valid(field) for field in layout.fields]
        assert list(layout.unpack(layout.pack(*values))) == values
        for index, field in enumerate(layout.fields):
            for value in wrong_values(field):
                changed = values[:index] + [value] + values[index + 1 :]
                fault = blamed(layout.pack, *changed)
                assert fault.blame == "local", (layout.name, field.name)
                assert fault.field == f"{layout.name}.{field.name}"
                assert fault.value is value and fault.allowed == field.allowed()
        assert blamed(layout.pack, *(values + [0])).blame == "local"


def test_every_field_refuses_what_the_peer_may_not_send():
    tried = 0
    for layout in layouts():
        whole = layout.pack(*[valid(field) for field in layout.fields])
        at = 0
        for field in layout.fields:
            size = _SIZES.get(field.kind, field.fixed_bytes)
            for value in _numbers_on_the_wire(field):
                chunk = struct.pack("<" + field.format, value)
                fault = blamed(layout.unpack, whole[:at] + chunk + whole[at + size :])
                assert fault.blame == "remote" and fault.reason == "range"
                assert field.name in fault.detail, (layout.name, field.name)
                tried += 1
            at += size or 0
    assert tried > 40


def _numbers_on_the_wire(field):
    """Return the numbers next to a field's bounds that its bytes can hold and it must refuse."""
    if field.kind not in _SIZES:
        return []
    bits = 8 * _SIZES[field.kind]
    least = -(1 << (bits - 1)) if field.kind == "i16" else 0
    most = least + (1 << bits) - 1
    edges = (field.low - 1, field.high + 1, least, most)
    return [n for n in edges if least <= n <= most and not field.fits(n)]


def test_a_rest_of_another_length_is_refused_in_few_words():
    tried = 0
    for layout in layouts():
        rest = layout.rest
        if rest is None:
            continue
        fixed = layout.pack(*[valid(field) for field in layout.fields])[: layout.size_bytes]
        for size in (rest.low, rest.high):
            assert layout.unpack(fixed + bytes(size))[-1] == bytes(size), layout.name
        for size in (rest.low - 1, rest.high + 1, 2000):
            if size >= 0:
                fault = blamed(layout.unpack, fixed + bytes(size))
                assert fault.blame == "remote" and fault.reason == "range"
                assert fault.detail == f"{layout.name}.{rest.name}: {size}, not {rest.allowed()}"
                tried += 1
    assert tried >= 4


def test_records_refuse_what_only_the_whole_shows():
    lamp = records.pack_lamp(2, 9, 70000, 65, 2, 0, 5, 1, 123456, 42)
    for low, high in ((15, 0), (0, 15)):
        fault = blamed(records.unpack, lamp[:15] + bytes([low | high << 4]) + lamp[16:])
        assert fault.blame == "remote"
    lost = records.pack_lost(10, 20, 1)
    assert records.unpack(lost).last_seq == 20
    backwards = lost[:16] + struct.pack("<I", 9) + lost[20:]
    assert blamed(records.unpack, backwards).blame == "remote"
    for event, outcome in ((99, 0), (0, 99), (-1, 0), ("x", 0), (0, None), (True, 0)):
        fault = blamed(records.pack_lamp, 2, 9, 1, 65, 2, 0, event, outcome, 1, 42)
        assert fault.blame == "local" and fault.field in ("event", "outcome")
    for seq, last_seq in ((10, 9), (10, 1 << 32), (10, "x"), (None, 10)):
        assert blamed(records.pack_lost, seq, last_seq, 1).blame == "local"


def test_messages_refuse_what_only_the_whole_shows():
    for kind in (messages.BACKFILL_REQUEST, messages.BACKFILL_END):
        assert blamed(messages.encode, kind, 5, 10, 9).blame == "local"
        data = bytes([kind]) + struct.pack("<III", 5, 10, 9)
        assert blamed(messages.decode, data).reason == "range"
    fault = blamed(messages.encode, messages.BACKFILL_REQUEST, 5, 1, 65)
    assert "at most 64" in fault.allowed
    assert blamed(messages.encode, messages.BACKFILL_ANSWER, 5, bytes(25)).blame == "local"
    assert blamed(messages.decode, bytes([messages.BACKFILL_ANSWER]) + bytes(29)).blame == "remote"
    assert blamed(messages.encode, 99).field == "kind"
    assert blamed(messages.decode, b"\x63").reason == "kind"
    assert blamed(messages.decode, b"").reason == "truncated"


def test_bthome_refuses_a_callers_mistakes():
    for number in sorted(bthome.OBJECTS):
        name, size, signed, _ = bthome.OBJECTS[number]
        low = -(1 << (8 * size - 1)) if signed else 0
        high = low + (1 << (8 * size)) - 1
        for value in (low, high):
            plain = bthome.encode_objects([(number, value)])
            assert bthome.decode_objects(plain) == [(number, value)]
        for value in (low - 1, high + 1, "7", None, 1.5, True):
            assert blamed(bthome.encode_objects, [(number, value)]).field == name
    for objects in (
        [(bthome.RAW, 7)],
        [(bthome.RAW, bytes(256))],
        [(bthome.RAW, bytes(14))],
        [(0x99, 1)],
        [("battery", 1)],
        [(bthome.DISTANCE, 1), (bthome.BATTERY, 1)],
    ):
        assert blamed(bthome.encode_objects, objects).blame == "local"
    for counter in (-1, 1 << 32, "7", None, True):
        assert blamed(bthome.seal, None, bytes(6), counter, b"").field == "counter"
    assert blamed(bthome.seal, None, bytes(5), 1, b"").field == "address"
    assert blamed(bthome.advertising_data, bytes(25)).blame == "local"
    assert len(bthome.advertising_data(bytes(24))) == 31


def test_registers_refuse_both_ways():
    for table in (registers.STATUS, registers.CONTROL):
        good = {name: (1 << (16 * words)) - 1 for name, words in table}
        packed = registers.pack(table, good)
        assert registers.unpack(table, packed) == good
        for name, words in table:
            for value in (-1, 1 << (16 * words), "7", None, 1.5, True):
                changed = dict(good)
                changed[name] = value
                assert blamed(registers.pack, table, changed).field == name
            missing = dict(good)
            del missing[name]
            assert blamed(registers.pack, table, missing).field == name
        for index in range(len(packed)):
            for value in (-1, 0x10000):
                changed = packed[:index] + [value] + packed[index + 1 :]
                assert blamed(registers.unpack, table, changed).reason == "range"
        assert blamed(registers.unpack, table, packed + [0]).reason == "size"
    for position in ((0, 0), (65536, 0), (1, 1), (1, 256 * registers.RECORD_WORDS)):
        assert blamed(registers.file_offset, *position).reason == "range"


def test_file_reads_stay_inside_their_file():
    for first_seq in (1, 250, 255, 256, 511, 16776959, 16776960, 0xFFFFFF00):
        count = registers.file_span(first_seq, first_seq + 99)
        last_seq = first_seq + count - 1
        assert 1 <= count <= 10
        assert registers.file_position(first_seq)[0] == registers.file_position(last_seq)[0]
    assert registers.file_span(7, 8) == 2


def test_the_other_bounds():
    assert blamed(frame.encode, b"").field == "payload"
    assert blamed(frame.encode, bytes(513)).field == "payload"
    for mtu_bytes in (0, 3, -1):
        assert blamed(gatt.chunks, b"frame", mtu_bytes).field == "mtu_bytes"
    assert gatt.chunks(bytes(45), 23) == [bytes(20), bytes(20), bytes(5)]
    assert blamed(keys.derive, None, bytes(15), b"up").field == "key"
    for epoch in (-1, 1 << 32, "7", None, True):
        assert blamed(keys.advert_key, None, bytes(16), epoch).field == "epoch"
    for site in (b"", bytes(25), b"\xff\xfe"):
        fault = blamed(provisioning.pack, 1, 1, bytes(6), bytes(16), site)
        assert fault.field == "Identity.site", site
    assert blamed(provisioning.pack, 1, 248, bytes(6), bytes(16), b"s").field == "Identity.unit"
    assert blamed(segment.pack_header, -1, 1).field == "SegmentHeader.epoch"


def test_every_fault_bit_has_its_word():
    assert 1 << len(FAULTS) == FAULTS_MASK + 1
    for index, word in enumerate(FAULTS):
        assert fault_names(1 << index) == [word]
    assert fault_names(0) == [] and fault_names(FAULTS_MASK) == list(FAULTS)


def test_every_setting_out_of_range_is_named():
    for name in settings.SETTINGS:
        default, low, high = settings.SETTINGS[name]
        assert settings.complaint(name, default) is None
        for wrong in (low - 1, high + 1, True, None, "7", 1.5):
            assert settings.complaint(name, wrong).startswith(name), (name, wrong)
    assert settings.complaint("pongs", 1)


def test_the_size_of_the_log_is_bounded():
    for rows in (4, 128, 512, 1024):
        most = min(64, settings.LOG_RECORDS_MAX // rows)
        assert settings.log_complaint(most, rows) is None
    segments, _, segments_max = settings.SETTINGS["log_segments"]
    _, _, rows_max = settings.SETTINGS["log_rows"]
    assert settings.log_complaint(segments, rows_max) is None
    text = settings.log_complaint(segments_max, rows_max)
    for part in ("log_segments = 64", "log_rows = 1024", "lower", "the default"):
        assert part in text, text
    block_bytes = 4096
    for rows in (512, rows_max):
        segment_bytes = segment.HEADER_BYTES + rows * segment.ROW_BYTES
        blocks = -(-segment_bytes // block_bytes)
        assert settings.LOG_RECORDS_MAX // rows * blocks * block_bytes <= 1 << 20
