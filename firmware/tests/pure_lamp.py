"""The lamp behind its bus: the specification's own examples, our registers, and fuzzed requests.

Rule: plain asserts, run under both interpreters by run.py; no hardware, real ADUs.
"""

from kerb_node import modbus
from kerb_node.lampregisters import LampRegisters
from kerb_node.light import arbiter, fade
from kerb_wire import records, registers
from kerb_wire.crc import crc16_modbus

UNIT = 17
NODE_ID = bytes.fromhex("a4cf12000010")


def h(text):
    return bytes.fromhex(text.replace(" ", ""))


def adu(pdu, unit=UNIT):
    body = bytes([unit]) + pdu
    return body + crc16_modbus(body).to_bytes(2, "little")


def ask(server, text):
    """Return the answering PDU in hex; the ADU around it is checked."""
    pdu = h(text) if isinstance(text, str) else text
    answer = server.answer(adu(pdu))
    assert answer == adu(answer[1:-2])
    return answer[1:-2]


class Example:
    """The registers that the examples of the specification read."""

    def __init__(self):
        self.holding = {0x6B: 0x022B, 0x6C: 0, 0x6D: 0x64}
        for address, value in zip(range(3, 9), (0xFE, 0x0ACD, 1, 3, 0x0D, 0xFF)):
            self.holding[address] = value

    def read_input(self, start, count):
        return [0x000A] if (start, count) == (8, 1) else None

    def read_holding(self, start, count):
        wanted = range(start, start + count)
        if any(address not in self.holding for address in wanted):
            return None
        return [self.holding[address] for address in wanted]

    def write_holding(self, start, values):
        for offset in range(len(values)):
            self.holding[start + offset] = values[offset]
        return True

    def records(self, offset, count):
        raise OSError(5)

    def identity(self):
        return {0: "Company identification", 1: "Product code XX", 2: "V2.11", 0x80: "node"}


def test_the_examples_of_the_specification():
    # Modbus Application Protocol V1.1b3: 6.3, 6.4, 6.6, 6.12, 6.17, 6.21; ADUs as on the wire.
    server = modbus.ModbusServer(UNIT, Example())
    assert server.answer(h("11 03 006B 0003 7687")) == adu(h("03 06 022B 0000 0064"))
    assert ask(server, "04 0008 0001") == h("04 02 000A")
    assert ask(server, "06 0001 0003") == h("06 0001 0003")
    assert ask(server, "10 0001 0002 04 000A 0102") == h("10 0001 0002")
    assert ask(server, "03 0001 0002") == h("03 04 000A 0102")
    both = ask(server, "17 0003 0006 000E 0003 06 00FF 00FF 00FF")
    assert both == h("17 0C 00FE 0ACD 0001 0003 000D 00FF")
    assert ask(server, "03 000E 0003") == h("03 06 00FF 00FF 00FF")
    basic = b"\x00\x16Company identification\x01\x0fProduct code XX\x02\x05V2.11"
    assert ask(server, "2B 0E 01 00") == h("2B 0E 01 83 00 00 03") + basic


def test_the_categories_of_the_identification():
    server = modbus.ModbusServer(UNIT, Example())
    assert ask(server, "2B 0E 02 00")[6] == 3
    assert ask(server, "2B 0E 03 00")[-6:] == b"\x80\x04node"
    assert ask(server, "2B 0E 01 02") == h("2B 0E 01 83 00 00 01 02 05") + b"V2.11"
    assert ask(server, "2B 0E 01 63")[6] == 3  # an unknown first object: from the beginning
    assert ask(server, "2B 0E 04 80") == h("2B 0E 04 83 00 00 01 80 04") + b"node"
    assert ask(server, "2B 0E 04 03") == h("AB 02")
    assert ask(server, "2B 0E 05 00") == h("AB 03")
    assert ask(server, "2B 0D 01 00") == h("AB 01")


class Lamp:
    """What LampRegisters shows of a lamp, without its light."""

    node_id = NODE_ID
    epoch = 0xDEADBEEF
    boot_no = 3
    level_pct = 41
    target_level_pct = 70
    last_seq = 40
    acked_seq = 12
    reason = 2
    command_no = 9
    command_outcome = 1
    bad_frames = 0
    switch_count = 6
    faults = 5

    def __init__(self):
        self.commands = []
        self.acks = []

    def uptime_s(self):
        return 70000

    def burn_min(self):
        return 123456

    def override_left_s(self):
        return 3600

    def reset_cause(self):
        return 3

    def command(self, *values):
        self.commands.append(values)

    def acknowledge(self, epoch, seq):
        self.acks.append((epoch, seq))


class Log:
    """Records 31 to 40; 21 to 30 were never used."""

    def first_seq(self):
        return 31

    def read(self, epoch, first_seq, last_seq):
        if first_seq < 31:
            yield records.pack_lost(first_seq, min(30, last_seq), 1)
        for seq in range(max(31, first_seq), last_seq + 1):
            yield records.pack_lamp(3, seq, seq, 70, 0, 0, 0, 0, 0, 0)


def lamp_server():
    lamp = Lamp()
    return lamp, modbus.ModbusServer(UNIT, LampRegisters(lamp, Log()))


def words(data):
    return [data[at] << 8 | data[at + 1] for at in range(0, len(data), 2)]


def write_control(values, start=registers.CONTROL_START):
    """Return the PDU that writes the registers `values` from `start` on."""
    data = b"".join(value.to_bytes(2, "big") for value in values)
    head = b"\x10" + start.to_bytes(2, "big") + len(values).to_bytes(2, "big")
    return head + bytes([len(data)]) + data


def control(**values):
    table = {name: 0 for name, _ in registers.CONTROL}
    table.update(values)
    return registers.pack(registers.CONTROL, table)


def test_the_state_reads_the_same_by_both_functions():
    _, server = lamp_server()
    count = registers.STATUS_WORDS.to_bytes(2, "big")
    direct = ask(server, b"\x04\x00\x00" + count)
    mirror = ask(server, b"\x03" + registers.STATUS_MIRROR.to_bytes(2, "big") + count)
    assert direct[2:] == mirror[2:]
    state = registers.unpack(registers.STATUS, words(direct[2:]))
    assert state["node_id"] == int.from_bytes(NODE_ID, "big")
    assert (state["epoch"], state["burn_min"], state["uptime_s"]) == (0xDEADBEEF, 123456, 70000)
    assert (state["first_seq"], state["last_seq"], state["override_left_s"]) == (31, 40, 3600)
    assert state["faults"] == 5


def test_only_the_echo_sets_a_command_off_and_only_once():
    lamp, server = lamp_server()
    asked = control(new_command_no=70000, new_level_pct=30, new_hold_s=90000, new_life_s=9, echo=5)
    ask(server, write_control(asked[:-1]))
    assert lamp.commands == []
    ask(server, write_control(asked[-1:], registers.ECHO_ADDRESS))
    assert lamp.commands == [(70000, 30, 0, 90000, 9)]
    echo = b"\x06" + registers.ECHO_ADDRESS.to_bytes(2, "big") + b"\x00\x06"
    assert ask(server, echo) == echo and len(lamp.commands) == 1
    ask(server, write_control(control(ack_epoch=7, ack_seq=33, echo=6)))
    assert lamp.acks == [(7, 33)] and len(lamp.commands) == 1


def test_what_is_written_together_is_answered_with_its_token():
    lamp, server = lamp_server()
    values = control(new_command_no=5, new_level_pct=30, new_hold_s=60, new_life_s=9, echo=0x1234)
    data = b"".join(value.to_bytes(2, "big") for value in values)
    request = b"\x17" + registers.ECHO_ADDRESS.to_bytes(2, "big")
    request += (1 + registers.STATUS_WORDS).to_bytes(2, "big")
    request += registers.CONTROL_START.to_bytes(2, "big") + len(values).to_bytes(2, "big")
    answer = ask(server, request + bytes([len(data)]) + data)
    assert answer[2:4] == b"\x12\x34" and len(lamp.commands) == 1
    assert registers.unpack(registers.STATUS, words(answer[4:]))["last_seq"] == 40


def read_file(server, seq, count):
    file_number, record_number = registers.file_position(seq)
    size = (count * registers.RECORD_WORDS).to_bytes(2, "big")
    where = file_number.to_bytes(2, "big") + record_number.to_bytes(2, "big")
    return ask(server, b"\x14\x07\x06" + where + size)


def test_the_log_by_file_records():
    _, server = lamp_server()
    answer = read_file(server, 31, 10)
    assert answer[:4] == bytes([0x14, 242, 241, 6])
    assert [records.seq_of(answer[at : at + 24]) for at in range(4, 244, 24)] == list(
        range(31, 41)
    )
    answer = read_file(server, 21, 4)  # one LOST record stands for all four, and is repeated
    rows = [records.unpack(answer[at : at + 24]) for at in range(4, 100, 24)]
    assert [(row.seq, row.last_seq) for row in rows] == [(21, 24)] * 4


def test_numbers_that_are_not_used_yet_are_not_called_lost():
    _, server = lamp_server()
    for seq, count in ((41, 1), (40, 2), (36, 10), (5000, 1), (0, 1)):
        assert read_file(server, seq, count) == h("94 02"), (seq, count)


def test_exceptions():
    _, server = lamp_server()
    for text, code in (
        ("01 0000 0001", 1),
        ("05 0000 FF00", 1),
        ("04 0000 0000", 3),
        ("04 0000 007E", 3),
        ("04 0000 007D", 2),
        ("04 0001 0000 00", 3),
        ("04 FFFF 0001", 2),
        ("03 0000 0001", 2),
        ("06 0000 0001", 2),
        ("06 FFFF 0001", 2),
        ("10 0064 0000 00", 3),
        ("10 0064 0001 01 00", 3),
        ("10 0064 0002 04 0001", 3),
        ("10 0063 0002 04 0001 0001", 2),
        ("17 0070 0000 0064 0001 02 0000", 3),
        ("17 0070 0001 0064 0000 00", 3),
        ("17 0000 0001 0064 0001 02 0000", 2),
        ("17 0070 0001 0000 0001 02 0000", 2),
        ("14 07 05 0001 0000 000C", 2),
        ("14 07 06 0000 0000 000C", 2),
        ("14 07 06 0001 0001 000C", 2),
        ("14 07 06 0001 0000 000D", 3),
        ("14 07 06 0001 0000 0084", 3),
        ("14 00", 3),
    ):
        answer = ask(server, text)
        assert answer == bytes([h(text)[0] | 0x80, code]), (text, answer)
    broken = modbus.ModbusServer(UNIT, Example())
    assert ask(broken, "14 07 06 0001 000C 000C") == h("94 04")  # its flash fails
    assert server.bad_frames == 0


def test_who_is_answered():
    lamp, server = lamp_server()
    request = adu(write_control(control(new_command_no=5, new_hold_s=9, echo=1)))
    assert server.answer(request) is not None and len(lamp.commands) == 1
    for unit in (0, UNIT + 1):
        assert server.answer(adu(request[1:-2], unit)) is None
    assert len(lamp.commands) == 1 and server.bad_frames == 0
    for size in range(len(request)):
        assert server.answer(request[:size]) is None
    assert server.bad_frames == len(request)
    for bit in range(8 * len(request)):
        broken = bytearray(request)
        broken[bit // 8] ^= 1 << (bit % 8)
        assert server.answer(bytes(broken)) is None, bit
        assert server.find(bytes(broken)) is None, bit
    assert server.answer(adu(bytes(300))) is None
    assert len(lamp.commands) == 1


def test_fuzzed_requests_with_a_right_crc_are_always_answered():
    _, server = lamp_server()
    state = 7
    codes = (0x03, 0x04, 0x06, 0x10, 0x14, 0x17, 0x2B, 0x01, 0x80)
    for number in range(3000):
        pdu = bytearray([codes[number % len(codes)]])
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        for _ in range(state >> 8 & 31):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            pdu.append(state >> 16 & (0xFF if state & 0x1000 else 0x07))
        answer = server.answer(adu(bytes(pdu)))
        assert answer[1] & 0x7F == pdu[0] & 0x7F and len(answer) <= 256
        if answer[1] & 0x80:
            assert 1 <= answer[2] <= 4 or pdu[0] == 0x80


def test_an_override_ends_when_it_should_and_the_newest_counts():
    rules = arbiter.Arbiter(70, 1000)
    rules.override(30, 5000)
    rules.override(0, 900)
    assert rules.decide(899) == (0, arbiter.OVERRIDE) and rules.left_s(899) == 1
    assert rules.decide(900) == (70, arbiter.START) and rules.left_s(900) == 0
    rules.heard(900)
    assert rules.decide(1899) == (70, arbiter.START)
    assert rules.decide(1900) == (70, arbiter.FAIL_SAFE)
    long_ms = 40 * 86400000  # far beyond the wrap of the port's ticks: uptime has none
    rules.override(55, long_ms + 604800000)
    assert rules.left_s(long_ms) == 604800
    assert rules.decide(long_ms + 604799999) == (55, arbiter.OVERRIDE)


def test_fades_never_leave_their_bounds_or_turn_back():
    for start_pct, end_pct in ((0, 100), (100, 0), (70, 30), (30, 31), (50, 50)):
        for duration_ms in (0, 1, 999, 65535):
            one = fade.Fade(start_pct, end_pct, duration_ms)
            levels = [one.level_pct(ms) for ms in range(-20, duration_ms + 40, 20)]
            assert levels[-1] == end_pct and one.done(duration_ms)
            falling = end_pct < start_pct
            assert levels == sorted(levels, reverse=falling)
            assert min(levels) >= min(start_pct, end_pct)
            assert max(levels) <= max(start_pct, end_pct)
