"""Round trips, ranges, truncations and bit flips of every message, record and frame."""

from aes import new_ecb
from kerb_wire import (
    advert,
    bthome,
    bundle,
    frame,
    messages,
    provisioning,
    records,
    registers,
    segment,
    session,
)
from kerb_wire.crc import crc32
from kerb_wire.errors import LocalFault, RemoteFault, WireError

RECORDS = (
    records.pack_fill(1, 7, 9, 1234, 3, 0, -85, 90, 0, 7, 7, 1, 3),
    records.pack_fill(
        1, 8, 9, records.NO_DISTANCE, 255, 2, records.NO_TEMPERATURE, 255, 1, 7, 0, 0, 0
    ),
    records.pack_lamp(2, 9, 70000, 65, 2, 0, 5, 1, 123456, 42),
    records.pack_lost(10, 20, 1),
)  # fmt: skip


def example(field):
    if field.kind.startswith("bytes"):
        return bytes(range(1, field.fixed_bytes + 1))
    if field.kind == "rest":
        return RECORDS[0] + RECORDS[2]
    return field.high


def examples():
    """Yield (kind, values) of every message kind."""
    for kind, layout in messages.LAYOUTS.items():
        values = [example(field) for field in layout.fields]
        names = [field.name for field in layout.fields]
        if "first_seq" in names and "last_seq" in names and kind != messages.HELLO_NODE:
            values[names.index("first_seq")] = 100
            values[names.index("last_seq")] = 120
        yield kind, values


def refused(function, data):
    try:
        function(data)
    except RemoteFault as fault:
        assert fault.blame == "remote" and fault.reason
        return True
    return False


def test_round_trips():
    for kind, values in examples():
        got_kind, row = messages.decode(messages.encode(kind, *values))
        assert got_kind == kind and list(row) == values
    for packed in RECORDS:
        row = records.unpack(packed)
        assert records.seq_of(packed) == row.seq


def test_every_field_out_of_range():
    for kind, values in examples():
        layout = messages.LAYOUTS[kind]
        for index, field in enumerate(layout.fields):
            if field.fixed_bytes is not None:
                wrong = (b"", bytes(field.fixed_bytes + 1), 7)
            elif field.kind == "rest":
                wrong = (b"", bytes(field.high + 24), 7)
            else:
                wrong = (field.low - 1, field.high + 1, "7", None, 1.5)
            for value in wrong:
                if value == field.extra:
                    continue
                changed = list(values)
                changed[index] = value
                try:
                    messages.encode(kind, *changed)
                except LocalFault as fault:
                    assert fault.blame == "local" and field.name in fault.field
                else:
                    raise AssertionError(f"{layout.name}.{field.name} = {value!r} was sent")


def test_every_truncation_and_tail():
    for kind, values in examples():
        whole = messages.encode(kind, *values)
        for size in range(len(whole)):
            if kind == messages.BACKFILL_ANSWER and (size - 5) % 24 == 0 and size > 5:
                continue  # fewer whole records are a message of their own
            assert refused(messages.decode, whole[:size]), (kind, size)
        assert refused(messages.decode, whole + b"\x00"), kind
    for packed in RECORDS:
        for size in range(len(packed)):
            assert refused(records.unpack, packed[:size])
        assert refused(records.unpack, packed + b"\x00")


def test_every_cut_and_bit_flip_in_a_frame():
    for kind, values in examples():
        whole = frame.encode(messages.encode(kind, *values))
        for size in range(1, len(whole) - 1):
            decoder = frame.Decoder()
            assert decoder.feed(whole[:size] + b"\x00") == [] and decoder.damaged == 1
        for bit in range(8 * len(whole)):
            broken = bytearray(whole)
            broken[bit // 8] ^= 1 << (bit % 8)
            decoder = frame.Decoder()
            assert decoder.feed(broken + b"\x00") == [], (kind, bit)
            assert decoder.damaged >= 1


def joined():
    root = bytes(range(16))
    gateway = session.GatewayHandshake(new_ecb, root, bytes(16), 1, 2)
    node = session.NodeHandshake(new_ecb, root)
    fields = lambda nonce: (1, 0, bytes(6), 5, nonce, 1, 2, 3, 4, 5)
    row, proof, down = gateway.finish(node.answer(gateway.hello(), bytes(range(16)), fields))
    assert row.epoch == 5
    return node.check(messages.decode(proof)[1]), down


def test_every_cut_and_bit_flip_in_a_sealed_message():
    up, down = joined()
    for kind, values in examples():
        payload = up.seal(messages.encode(kind, *values))
        for bit in range(8 * len(payload)):
            broken = bytearray(payload)
            broken[bit // 8] ^= 1 << (bit % 8)
            assert refused(down.open, bytes(broken)), (kind, bit)
        for size in range(len(payload)):
            assert refused(down.open, payload[:size]), (kind, size)
        assert refused(down.open, payload + b"\x00"), kind
        assert down.open(payload)[0] == kind
        assert refused(down.open, payload), "a replay inside the session was taken"


def test_a_session_needs_the_key():
    gateway = session.GatewayHandshake(new_ecb, bytes(16), bytes(16), 1, 2)
    node = session.NodeHandshake(new_ecb, bytes(range(16)))
    fields = lambda nonce: (1, 0, bytes(6), 5, nonce, 1, 2, 3, 4, 5)
    answer = node.answer(gateway.hello(), bytes(16), fields)
    assert refused(gateway.finish, answer)
    assert refused(node.check, messages.LAYOUTS[messages.PROOF].Row(bytes(8)))


def test_frames_over_a_stream():
    payloads = [bytes(range(256)), bytes(300), b"\x01", bytes([255]) * 512]
    stream = b"".join(frame.encode(payload) for payload in payloads)
    for step in (1, 3, 20, len(stream)):
        decoder = frame.Decoder()
        got = []
        for at in range(0, len(stream), step):
            got.extend(decoder.feed(stream[at : at + step]))
        assert got == payloads and decoder.damaged == 0
    decoder = frame.Decoder()
    assert decoder.feed(b"\x05" * 100000 + b"\x00" + frame.encode(b"ok")) == [b"ok"]
    assert decoder.damaged == 1


def test_adverts_read_back():
    for packed in RECORDS[:2]:
        record = records.unpack(packed)
        objects = advert.objects_of(record, 0x12345678)
        assert len(objects) <= 15
        row = advert.reading_of(objects)
        for name in ("distance_mm", "sigma_mm", "quality", "temperature_dc", "battery_pct"):
            assert getattr(row, name) == getattr(record, name), name
        assert row.epoch_tag == 0x78


def test_adverts_objects_are_found_in_a_packed_record_too():
    nones = (records.NO_DISTANCE, 0, records.NO_TEMPERATURE, records.NO_BATTERY)
    for distance_mm, sigma_mm, temperature_dc, battery_pct in (
        nones,
        (0, 255, -600, 0),
        (20000, 1, 1250, 100),
        (258, 7, -1, 90),
        (300, 0, nones[2], 5),
    ):
        packed = records.pack_fill(
            7, 9, 11, distance_mm, sigma_mm, 8, temperature_dc, battery_pct, 8, 6, 5, 15, 254
        )
        row = records.unpack(packed)
        for epoch in (0, 0x1FF, 0xFFFFFFFF):
            objects = advert.objects_of(row, epoch)
            assert advert.objects_of_packed(packed, epoch) == objects, row


def test_identity_blob():
    blob = provisioning.pack(1, 17, bytes(6), bytes(range(16)), "Köln".encode())
    assert provisioning.unpack(blob).unit == 17
    for bit in range(8 * len(blob)):
        broken = bytearray(blob)
        broken[bit // 8] ^= 1 << (bit % 8)
        assert refused(provisioning.unpack, bytes(broken))
    assert provisioning.address_of(bytes.fromhex("a4cf1200fffe")) == bytes.fromhex("a4cf1200ff00")


def test_registers():
    values = {name: index for index, (name, _) in enumerate(registers.STATUS)}
    packed = registers.pack(registers.STATUS, values)
    assert registers.unpack(registers.STATUS, packed) == values
    assert refused(lambda data: registers.unpack(registers.STATUS, data), packed[:-1])
    for seq in (1, 255, 256, 16776959):
        assert registers.file_offset(*registers.file_position(seq)) == seq % registers.FILE_SPAN
    for name, words in registers.STATUS:
        try:
            registers.pack(registers.STATUS, dict(values, **{name: 1 << (16 * words)}))
        except LocalFault as fault:
            assert fault.field == name
        else:
            raise AssertionError(name)


def test_segments():
    header = segment.pack_header(77, 5)
    assert segment.unpack_header(header).first_seq == 5
    row = segment.pack_row(RECORDS[0])
    assert segment.unpack_row(row) == RECORDS[0]
    for bit in range(8 * len(row)):
        broken = bytearray(row)
        broken[bit // 8] ^= 1 << (bit % 8)
        assert refused(segment.unpack_row, bytes(broken))


def corpus(count):
    """Yield byte strings, the same on every interpreter: noise and slightly damaged examples."""
    bases = [messages.encode(kind, *values) for kind, values in sorted(examples())]
    bases += [advert.objects_of(records.unpack(RECORDS[0]), 5), frame.stuff(RECORDS[0])]
    bases += list(RECORDS)
    state = 12345
    for number in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        data = bytearray()
        if number & 1:
            data.extend(bases[number // 2 % len(bases)])
            data[(state >> 8) % len(data)] ^= state >> 16 & 0xFF
        else:
            for _ in range(state >> 8 & 63):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                data.append(state >> 16 & 0xFF)
        yield bytes(data)


def unseal(data):
    return bthome.unseal(new_ecb(bytes(16)), bytes(6), data)


def open_sealed(data):
    return joined()[1].open(b"\x01" + data)


def finish(data):
    return session.GatewayHandshake(new_ecb, bytes(16), bytes(16), 1, 2).finish(data)


def unbundle(data):
    return bundle.unseal(new_ecb(bytes(16)), data)


def feed(data):
    decoder = frame.Decoder()
    return decoder.feed(data + b"\x00"), decoder.damaged


def control(data):
    words = [data[at] << 8 | data[at + 1] for at in range(0, len(data) - 1, 2)]
    return sorted(registers.unpack(registers.CONTROL, words).items())


def file_offset(data):
    return registers.file_offset(len(data), sum(data))


DECODERS = (
    messages.decode, records.unpack, frame.decode, frame.unstuff, feed, advert.reading_of,
    bthome.decode_objects, bthome.counter_of, unseal, provisioning.unpack, segment.unpack_header,
    segment.unpack_row, session.open_plain, open_sealed, finish, control, file_offset,
    bundle.epoch_of, unbundle,
)  # fmt: skip


def outcomes(count):
    """Return (digest of what every decoder says to the corpus, how often one took it)."""
    digest = taken = 0
    for data in corpus(count):
        for decoder in DECODERS:
            try:
                said = "ok " + repr(decoder(data))
                taken += decoder is not feed
            except WireError as error:
                said = error.blame + " " + str(error)
            digest = crc32(said.encode() + digest.to_bytes(4, "little"))
    return digest, taken


def test_arbitrary_bytes_raise_nothing_else():
    assert outcomes(400)[1] > 100
