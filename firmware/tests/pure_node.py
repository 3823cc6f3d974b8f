"""The node's pure parts, plain asserts: run under both interpreters by run.py."""

import os

from kerb_node import config, lampstate, modbus, readinglog, retained
from kerb_node.fill import estimate, sound
from kerb_node.light import arbiter, fade, perceptual
from kerb_node.readinglog import ReadingLog
from kerb_node.sequence import Sequence
from kerb_node.uptime import Uptime, slept_ms
from kerb_wire import records, segment
from kerb_wire.crc import crc16_modbus
from kerb_wire.records import NO_DISTANCE

WARM_DC = 200


def echo(distance_mm, tenths=WARM_DC):
    return int(distance_mm * 2000 / sound.speed_m_s(tenths) + 0.5)


def burst(distances_mm, same_count=0):
    echoes = [-1 if one is None else echo(one) for one in distances_mm]
    return estimate.estimate(echoes, WARM_DC, 250, 4500, same_count)


def test_speed_of_sound():
    assert abs(sound.speed_m_s(0) - 331.3) < 0.1
    assert abs(sound.speed_m_s(200) - 343.2) < 0.3
    wrong = sound.distance_mm(echo(2000, -100), 200)
    assert 100 < wrong - 2000 < 125  # what an uncompensated sensor is off at -10 C


def test_outliers_are_rejected():
    distance_mm, sigma_mm, quality, used = burst([1000, 1001, 999, 1000, 600, 1800, 1000])
    assert abs(distance_mm - 1000) <= 1 and sigma_mm <= 2 and used == 5
    assert quality == estimate.GOOD


def test_qualities():
    assert burst([None] * 7)[0] == NO_DISTANCE and burst([None] * 7)[2] == estimate.NO_ECHO
    assert burst([120] * 7)[2] == estimate.BLIND_ZONE
    assert burst([4900] * 7)[2] == estimate.OUT_OF_RANGE
    assert burst([1000, 1001, None, None, None, None, None])[2] == estimate.UNCERTAIN
    assert burst([1000] * 7, same_count=24)[2] == estimate.STUCK
    assert burst([900, 960, 1020, 1080, 1000, 940, 1060])[2] == estimate.UNCERTAIN
    # Half of a burst are ghosts: what nothing has reflected is no distance.
    distance_mm, _, quality, _ = burst([1900, 3420, None, 3422, 1902, 3424, 1901])
    assert abs(distance_mm - 1901) <= 2 and quality == estimate.UNCERTAIN


def test_most_of_a_burst_are_ghosts():
    """The MAD is wider than the bin, as happened in a street: the mean would be 1528 mm."""
    echoes_mm = [507, 506, 909, 2749, 2037, 2034, 2035]
    distance_mm, sigma_mm, quality, used = burst(echoes_mm)
    assert abs(distance_mm - 2035) <= 2 and sigma_mm <= 3 and used == 3
    assert quality == estimate.UNCERTAIN
    # A group of most echoes that had to be looked for is not trusted either.
    _, sigma_mm, quality, used = burst([1000, 1000, 1001, 1149, 1400, 1150, 1400])
    assert used == 5 and quality == estimate.UNCERTAIN
    # Of echoes that are each alone the nearest: a bin is rather emptied too early.
    distance_mm, sigma_mm, quality, used = burst([3000, 1000, 2000])
    assert abs(distance_mm - 1000) <= 1 and sigma_mm == records.SIGMA_MAX_MM and used == 1
    assert quality == estimate.UNCERTAIN


def test_a_distance_was_always_reflected_by_something():
    state = 1
    for _ in range(2000):
        echoes_mm = []
        for _ in range(3 + state % 13):
            state = (state * 1103515245 + 12345) & 0x3FFFFFFF
            ghost = (state >> 8) % 3 == 0
            echoes_mm.append(300 + (state >> 12) % 4100 if ghost else 1800 + (state >> 12) % 60)
        distance_mm, _, quality, used = burst(echoes_mm)
        away_mm = min(abs(distance_mm - one) for one in echoes_mm)
        assert away_mm <= 76, (echoes_mm, distance_mm)
        assert quality == estimate.UNCERTAIN or 2 * used > len(echoes_mm), echoes_mm


class Store:
    def __init__(self):
        self.held = {}
        self.writes = 0

    def get_int(self, key, default):
        return self.held.get(key, default)

    def set_int(self, key, value):
        self.held[key] = value
        self.writes += 1


def test_a_number_is_never_used_twice():
    store = Store()
    used = set()
    for boot in range(20):
        sequence = Sequence(store)
        for _ in range(boot * 37 % 300):
            number = sequence.take()
            assert number not in used
            used.add(number)
            assert store.held["seq_block"] > number, "used before it was reserved"
    assert store.writes < 45


def test_the_count_goes_on_after_deep_sleep():
    store = Store()
    first = Sequence(store)
    assert [first.take() for _ in range(3)] == [1, 2, 3]
    again = Sequence(store, first.next_seq, first.block_end)
    assert again.take() == 4 and store.writes == 1


def test_uptime_over_the_wrap_of_ticks():
    period = 1 << 30
    now = [period - 500]
    diff = lambda a, b: ((a - b + period // 2) & (period - 1)) - period // 2
    uptime = Uptime(lambda: now[0] & (period - 1), diff, 7000)
    for _ in range(10):
        now[0] += 100
        uptime.now_ms()
    assert uptime.now_ms() == 8000
    assert slept_ms(60000, 1000, 31000) == 30000  # a pin ended it early
    assert slept_ms(60000, 1000, 500) == 60000  # the clock went back
    assert slept_ms(60000, 1000, 10000000) == 60000


def fill_record(seq):
    return records.pack_fill(1, seq, seq, 1000, 2, 0, 200, 90, 0, 7, 7, 1, 0)


def clear(directory):
    try:
        for name in os.listdir(directory):
            os.remove(f"{directory}/{name}")
    except OSError:
        pass


def test_the_reading_log(directory="pure_node_log"):
    clear(directory)
    log = ReadingLog(directory, 5, 3, 4)
    for seq in (1, 2, 5, 6, 7):
        log.append(fill_record(seq))
    answer = [records.unpack(one) for one in log.read(5, 1, 9)]
    kinds = [(row.kind, row.seq) for row in answer]
    assert kinds == [(1, 1), (1, 2), (3, 3), (1, 5), (1, 6), (1, 7), (3, 8)], kinds
    assert [row.reason for row in answer if row.kind == 3] == [1, 1]
    for seq in range(8, 30):
        log.append(fill_record(seq))
    again = ReadingLog(directory, 5, 3, 4)
    first = next(again.read(5, 1, 29))
    assert records.unpack(first).kind == 3 and records.unpack(first).reason == 0  # overwritten
    assert records.seq_of(again.last_record()) == 29
    assert len(os.listdir(directory)) == 3
    newest = sorted(os.listdir(directory))[-1]
    with open(f"{directory}/{newest}", "ab") as file:
        file.write(b"torn")
    torn = ReadingLog(directory, 5, 4, 4)
    torn.append(fill_record(30))
    assert [records.seq_of(one) for one in torn.read(5, 28, 30)] == [28, 29, 30]
    other = ReadingLog(directory, 6, 4, 4)
    other.append(fill_record(1))
    assert other.first_seq() == 1 and other.last_record() == fill_record(1)
    clear(directory)


def test_a_full_file_system_costs_the_oldest_segments(directory="pure_node_log"):
    """The file of a new segment is made, and then there is no block for its content."""

    class Full:
        def __init__(self, path, mode):
            open(path, mode).close()

        def __enter__(self):
            return self

        def write(self, data):
            raise OSError(28, "no block is free")

        def __exit__(self, *error):
            return False

    clear(directory)
    log = ReadingLog(directory, 5, 5, 4)
    for seq in range(1, 17):
        log.append(fill_record(seq))
    room_for = [2]  # segments beside the new one

    def scarce(path, mode):
        full = mode == "wb" and len(os.listdir(directory)) > room_for[0]
        return (Full if full else open)(path, mode)

    readinglog.open = scarce
    try:
        log.append(fill_record(17))
        assert lost(log, 5, 1, 17) == [(1, 8, 0)]
        for seq in (18, 19, 20):
            log.append(fill_record(seq))
        before = sorted(os.listdir(directory))
        room_for[0] = -1
        try:
            log.append(fill_record(21))
            raise AssertionError("stored on a full file system")
        except OSError as error:
            assert error.errno == 28
        # One is left, and nothing half made: its numbers go on behind it.
        assert os.listdir(directory) == before[-1:]
        room_for[0] = 9
        log.append(fill_record(21))
        assert sorted(os.listdir(directory)) == [before[-1], "00000006.seg"]
    finally:
        del readinglog.open
        clear(directory)


def test_a_damaged_row_is_said_as_crc(directory="pure_node_log"):
    clear(directory)
    log = ReadingLog(directory, 5, 3, 16)
    for seq in range(1, 6):
        log.append(fill_record(seq))
    path = f"{directory}/00000001.seg"
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[segment.HEADER_BYTES + 2 * segment.ROW_BYTES + 3] ^= 1
    with open(path, "wb") as file:
        file.write(data)
    answer = [records.unpack(one) for one in log.read(5, 1, 5)]
    assert [(r.kind, r.seq) for r in answer] == [(1, 1), (1, 2), (3, 3), (1, 4), (1, 5)]
    assert answer[2].reason == 2
    clear(directory)


def lost(log, epoch, first_seq, last_seq):
    """Return [(first, last, reason)] of what the log says is gone."""
    rows = [records.unpack(one) for one in log.read(epoch, first_seq, last_seq)]
    return [(row.seq, row.last_seq, row.reason) for row in rows if row.kind == records.LOST]


def test_what_is_gone_is_said_with_its_true_reason(directory="pure_node_log"):
    overwritten, unused, crc = 0, 1, 2
    clear(directory)
    log = ReadingLog(directory, 5, 3, 4)
    assert lost(log, 5, 1, 3) == [(1, 3, overwritten)]  # an empty flash proves nothing
    for seq in list(range(1, 21)):
        log.append(fill_record(seq))
    assert lost(log, 5, 1, 4) == [(1, 4, overwritten)]  # wholly before the oldest row
    assert lost(log, 5, 1, 20) == [(1, 8, overwritten)]
    assert lost(log, 9, 1, 4) == [(1, 4, overwritten)]  # an epoch that left nothing
    other = ReadingLog(directory, 6, 3, 4)
    other.append(fill_record(3))
    assert lost(other, 6, 1, 3) == [(1, 2, unused)]  # behind the other epoch's files
    assert lost(other, 5, 13, 20) == []  # the older epoch is still there
    # 13 to 16, 17 to 20, epoch 6: the middle header is damaged.
    middle = f"{directory}/{sorted(os.listdir(directory))[1]}"
    with open(middle, "rb") as file:
        data = bytearray(file.read())
    data[9] ^= 1
    with open(middle, "wb") as file:
        file.write(data)
    damaged = ReadingLog(directory, 6, 3, 4)
    assert lost(damaged, 5, 13, 20) == [(17, 20, crc)]
    assert lost(damaged, 6, 3, 3) == []
    with open(f"{directory}/notes.seg", "wb") as file:
        file.write(b"not ours")
    assert lost(ReadingLog(directory, 6, 3, 4), 6, 3, 3) == []
    clear(directory)


def test_numbers_before_the_first_record_ever_were_never_used(directory="pure_node_log"):
    """The power went in the first wake: its block is skipped, and nothing of it was a reading."""
    overwritten, unused = 0, 1
    clear(directory)
    log = ReadingLog(directory, 5, 3, 4)
    assert log.began() == 0
    log.append(fill_record(257))
    assert log.began() == 257  # the first file is there: nothing was ever removed
    assert lost(log, 5, 1, 257) == [(1, 256, unused)]
    assert lost(log, 5, 1, 64) == [(1, 64, unused)]
    noted = ReadingLog(directory, 5, 3, 4, log.began())
    for seq in range(258, 280):
        noted.append(fill_record(seq))
    assert lost(noted, 5, 1, 279) == [(1, 256, unused), (257, 268, overwritten)]
    clear(directory)
    formatted = ReadingLog(directory, 5, 3, 4, 1)  # NVS remembers a log that is gone
    formatted.append(fill_record(300))
    assert lost(formatted, 5, 1, 300) == [(1, 299, overwritten)]
    clear(directory)


def test_settings():
    good = config.Settings('{"pings": 5}')
    assert good.pings == 5 and not good.complaints
    bad = config.Settings('{"pings": 99, "pongs": 1, "advert_ms": "x", "log_rows": true}')
    assert bad.pings == 7 and len(bad.complaints) == 4
    large = config.Settings('{"log_segments": 64, "log_rows": 1024, "pings": 5}')
    assert (large.log_segments, large.log_rows, large.pings) == (16, 1024, 5)
    assert len(large.complaints) == 1 and "log_segments = 64" in large.complaints[0]
    assert not config.Settings('{"log_segments": 32, "log_rows": 1024}').complaints
    assert config.Settings('{"crash_limit": 1}').crash_limit == 3
    # MicroPython's parser takes an object that is cut short; its values are still checked.
    for text in ("", "[]", "null"):
        assert config.Settings(text).complaints


def test_a_bad_settings_file_keeps_no_node_from_measuring():
    for content in (
        b'{"pings": 5, "gr\xf6\xdfe": 1}',  # an editor's Latin-1
        b"\xff\xfe",
        b"[" * 4000,
        b'{"pings": ' + b"[" * 1500 + b"]" * 1500 + b"}",
        b'{"pings": "' + b"x" * 3000 + b'"}',
        b'{"' + b"x" * 3000 + b'": 1}',
        b'{"pings": 5' + b" " * 9000 + b"}",
    ):
        with open("settings.json", "wb") as file:
            file.write(content)
        settings = config.load("settings.json")
        assert settings.pings == 7 and len(settings.complaints) == 1
        assert len(settings.complaints[0]) < 200
    assert config.load("no-such-file.json").complaints == []


def test_retained_memory_proves_itself():
    values = {name: 1 for name in retained.FIELDS if name != "version"}
    values["record"] = fill_record(1)
    block = retained.pack(**values)
    assert len(block) <= 2048
    assert retained.unpack(block).next_seq == 1
    for bit in range(8 * len(block)):
        broken = bytearray(block)
        broken[bit // 8] ^= 1 << (bit % 8)
        assert retained.unpack(broken) is None
    state = lampstate.pack(30, 30, 60, 1000, 2)
    assert lampstate.unpack(state).override_pct == 30
    assert lampstate.unpack(state[:-1]) is None


def test_the_perceptual_curve():
    duties = [perceptual.duty_u16(level) for level in range(101)]
    assert duties[0] == 0 and duties[100] == 65535
    assert all(duties[n] < duties[n + 1] for n in range(100))
    assert abs(duties[50] / 65535 - 0.1842) < 0.001  # CIE 1931: L* 50 is 18.42 % of the light


def test_fades():
    up = fade.Fade(10, 90, 1000)
    assert [up.level_pct(ms) for ms in (-5, 0, 500, 999, 1000, 5000)] == [10, 10, 50, 89, 90, 90]
    assert fade.Fade(5, 50, 0).level_pct(0) == 50


def test_the_arbiter():
    rules = arbiter.Arbiter(70, 1000)
    rules.heard(0)
    assert rules.decide(10) == (70, arbiter.START)
    rules.override(30, 500)
    assert rules.decide(499) == (30, arbiter.OVERRIDE) and rules.left_s(499) == 1
    assert rules.decide(500) == (70, arbiter.START)
    assert rules.decide(1000) == (70, arbiter.FAIL_SAFE)
    rules.override(20, 3000)
    assert rules.decide(2000) == (20, arbiter.OVERRIDE)


class Device:
    def __init__(self):
        self.words = [0] * 20

    def read_input(self, start, count):
        return self.words[start : start + count] if start + count <= 20 else None

    read_holding = read_input

    def write_holding(self, start, values):
        if start + len(values) > 20:
            return False
        self.words[start : start + len(values)] = values
        return True

    def records(self, offset, count):
        return [fill_record(offset + n) for n in range(count)] if offset else None

    def identity(self):
        return {0: "Kerbstone", 1: "KS-LAMP", 2: "1"}


def ask(server, pdu, unit=7):
    body = bytes([unit]) + pdu
    return server.answer(body + crc16_modbus(body).to_bytes(2, "little"))


def test_the_modbus_server():
    server = modbus.ModbusServer(7, Device())
    assert ask(server, bytes.fromhex("1000020001021234"))[1:6] == bytes.fromhex("1000020001")
    assert ask(server, bytes.fromhex("0300020001"))[1:5] == bytes.fromhex("03021234")
    assert ask(server, bytes.fromhex("0400020001"))[1:5] == bytes.fromhex("04021234")
    assert ask(server, bytes.fromhex("0600030056"))[1:6] == bytes.fromhex("0600030056")
    both = ask(server, bytes.fromhex("170003000100030001020099"))
    assert both[1:5] == bytes.fromhex("17020099")
    log = ask(server, bytes.fromhex("1407060001000c000c"))
    assert log[1:5] == bytes.fromhex("141a1906") and log[5:29] == fill_record(1)
    assert b"Kerbstone" in ask(server, bytes.fromhex("2b0e0100"))
    for pdu, code in (
        ("99", 1),
        ("0300140001", 2),
        ("0300000000", 3),
        ("03000000ff", 3),
        ("1000000001", 3),
        ("10000000010212", 3),
        ("1407060001000d000c", 2),
        ("1407060001000c000b", 3),
        ("14070600010000000c", 2),
        ("2b0d0100", 1),
        ("2b0e0900", 3),
        ("2b0e0409", 2),
    ):
        answer = ask(server, bytes.fromhex(pdu))
        assert answer[1] & 0x80 and answer[2] == code, (pdu, answer)
    assert ask(server, bytes.fromhex("0300020001"), unit=8) is None
    assert ask(server, bytes.fromhex("0300020001"), unit=0) is None
    assert server.bad_frames == 0
    assert server.answer(b"\x07\x03\x00\x02\x00\x01\x00\x00") is None and server.bad_frames == 1


def test_requests_are_found_behind_other_talk():
    server = modbus.ModbusServer(7, Device())
    body = bytes.fromhex("070300020001")
    request = body + crc16_modbus(body).to_bytes(2, "little")
    assert server.find(request) == request
    assert server.find(b"\x03\x07\x55" + request) == request
    assert server.find(request[:-1]) is None and server.is_begun(request[:-1])
    state = 1
    for _ in range(300):
        data = bytearray()
        for _ in range(state % 40):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            data.append(state >> 16 & 0xFF)
        state += 1
        server.find(data)
        server.answer(bytes(data))
