"""The set checker against doctored runs: each lie must be found.

The honest run is made here by hand, without gateway, firmware or simulator.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kerb_check.model import content_of
from kerb_check.verdict import judge
from kerb_wire import records, segment, words
from littlefs import LittleFS

BIN, LAMP = "a4cf12000001", "a4cf12000002"
EPOCH = 9
GW_EPOCH = "9f1c2ab04d5e6f70"
BLOCKS = 32
BURSTS = 12
GEOMETRY = {"shape": "box", "empty_distance_mm": 2000, "full_distance_mm": 1000}
Rows = list[dict[str, Any]]


def fill(seq: int) -> bytes:
    return records.pack_fill(1, seq, 10 * seq, 1000 + seq, 2, 0, 200, 90, 0, 3, 3, 1, 0)


def lamp(seq: int) -> bytes:
    return records.pack_lamp(1, seq, 100 + seq, 40, 2, 0, 5, 1, 7, seq - 2)


def lamp_fault(seq: int, uptime_s: int, faults: int) -> bytes:
    return records.pack_lamp(1, seq, uptime_s, 70, 0, faults, 7, 0, 7, 0)


class Run:
    """The four sources of a run, written by write()."""

    def __init__(self) -> None:
        self.flash = {
            BIN: [fill(seq) for seq in range(1, BURSTS + 1)],
            LAMP: [lamp_fault(1, 12, 1), lamp_fault(2, 32, 0), lamp(3), lamp(4)],
        }
        self.world: Rows = [
            {"type": "node", "node": BIN, "role": "bin", "geometry": GEOMETRY, "t_s": 0},
            {"type": "node", "node": LAMP, "role": "lamp", "geometry": None, "t_s": 0},
            {"type": "boot", "node": BIN, "cause": "power_on", "t_s": 100.0},
            {"type": "boot", "node": LAMP, "cause": "power_on", "t_s": 50.0},
            {"type": "lamp", "node": LAMP, "light_pct": 40.7, "t_s": 50.5},
            {"type": "lamp_fault", "node": LAMP, "what": "open load", "t_s": 60.0},
            {"type": "lamp_fault", "node": LAMP, "what": "", "t_s": 80.0},
            {"type": "lamp", "node": LAMP, "light_pct": 11.0, "t_s": 152.0},
        ]
        for seq in range(1, BURSTS + 1):
            self.world += [
                {
                    "type": "ping",
                    "node": BIN,
                    "wake_no": seq,
                    "ping_no": n,
                    "t_s": 100 + 10 * seq,
                    "echo_us": round((1000 + seq) * 2 / 0.3437),
                    "distance_true_mm": 1000 + seq,
                    "fill_true_pct": 50,
                    "air_c": 20,
                }
                for n in range(3)
            ]
            self.world.append({"type": "sleep", "node": BIN, "ms": 1, "t_s": 100.5 + 10 * seq})
        self.world.append({"type": "measuring_stopped", "t_s": 999})
        self.stored: Rows = [self._payload(BIN, packed) for packed in self.flash[BIN]]
        self.stored += [self._payload(LAMP, packed) for packed in self.flash[LAMP]]
        self.messages = [self._placed(row, n) for n, row in enumerate(self.stored, 1)]
        for seq, row in enumerate(self.messages[:BURSTS], 1):
            row["time"] = self._time(100_000 + 10_000 * seq)
        self.losses: Rows = []
        self.commands: Rows = [
            {"command_id": f"c{n}", "node": LAMP, "level_pct": 40} for n in (1, 2)
        ]
        self.results: Rows = [
            {"command_id": f"c{n}", "command_no": n, "result": "applied", "node": LAMP}
            for n in (1, 2)
        ]
        self.cut = False

    @staticmethod
    def _time(truth_ms: int) -> dict[str, Any]:
        """A range around the truth, with its estimate 400 ms beside it."""
        return {
            "boot_id": "b",
            "t_min_ms": truth_ms - 1500,
            "t_ms": truth_ms + 400,
            "t_max_ms": truth_ms + 500,
        }

    @staticmethod
    def _placed(row: dict[str, Any], outbox_no: int) -> dict[str, Any]:
        """A reading's message: what is stored, what it is called and its place."""
        id_ = f"{row['node']}/{row['epoch']}/{row['seq']}"
        return row | {"id": id_, "gw_epoch": GW_EPOCH, "outbox_no": outbox_no}

    @staticmethod
    def _payload(node: str, packed: bytes) -> dict[str, Any]:
        row = records.unpack(packed)
        via: dict[str, Any] = {"via": "modbus", "auth": "none"}
        if node == BIN:
            via = {"via": "advert", "auth": "mic", "fill_pct": round(100 - row.seq / 10, 1)}
        return {"node": node, "epoch": EPOCH, "seq": row.seq} | content_of(row) | via

    def write(self, run: Path) -> None:
        for node, packed in self.flash.items():
            disk = LittleFS(block_size=4096, block_count=BLOCKS)
            disk.mkdir("log")
            with disk.open("log/00000001.seg", "wb") as file:
                first = records.seq_of(packed[0])
                rows = b"".join(segment.pack_row(one) for one in packed)
                file.write(segment.pack_header(EPOCH, first) + rows)
            folder = run / "nodes" / node
            folder.mkdir(parents=True)
            (folder / "flash.img").write_bytes(bytes(disk.context.buffer))
        self._lines(run / "world.jsonl", self.world)
        begin, end = {"type": "begin"}, {"type": "end"}
        self._lines(run / "commands.jsonl", [begin, *self.commands, end])
        messages = [self._message(row, "reading") for row in self.messages]
        messages += [
            self._message({"kind": "loss"} | row, "event")
            for row in self._numbered(self.losses, 1000)
        ]
        messages += [self._message(row, "result") for row in self._numbered(self.results, 2000)]
        self._lines(run / "subscriber.jsonl", [begin, *messages, end])
        if self.cut:
            path = run / "subscriber.jsonl"
            path.write_bytes(path.read_bytes()[:-200])
        self._database(run / "gateway.sqlite")

    @staticmethod
    def _numbered(rows: Rows, first_no: int) -> Rows:
        """Messages of other kinds, each at a place of its own where a test gave it none."""
        place = {"gw_epoch": GW_EPOCH}
        return [place | {"outbox_no": first_no + n} | row for n, row in enumerate(rows)]

    @staticmethod
    def _message(row: dict[str, Any], leaf: str) -> dict[str, Any]:
        topic = f"kerb/v1/s/g/{row['node']}/{leaf}"
        return {"t_s": 1.0, "topic": topic, "payload": row, "text": None}

    @staticmethod
    def _lines(path: Path, rows: Rows) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _database(self, path: Path) -> None:
        names = sorted({name for row in self.stored for name in row} - {"node", "epoch"})
        names = [name for name in names if name != "temperature_c"] + ["temperature_dc"]
        with sqlite3.connect(path) as db:
            db.execute("create table nodes (node_no, node_id)")
            db.execute("create table streams (stream_no, node_no, epoch)")
            db.execute("create table gaps (stream_no, first_seq, last_seq)")
            db.execute("create table losses (stream_no, first_seq, last_seq, reason)")
            db.execute(f"create table readings (reading_no, stream_no, {', '.join(names)})")
            for number, node in enumerate((BIN, LAMP)):
                db.execute("insert into nodes values (?,?)", [number, node])
                db.execute("insert into streams values (?,?,?)", [number, number, EPOCH])
            for number, row in enumerate(self.stored):
                tenths = row.get("temperature_c")
                row = row | {"temperature_dc": None if tenths is None else tenths * 10}
                values = [number, (BIN, LAMP).index(row["node"]), *(row.get(n) for n in names)]
                db.execute(f"insert into readings values ({', '.join('?' * len(values))})", values)


def test_an_honest_run_is_good(tmp_path: Path) -> None:
    Run().write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]
    assert verdict.figures["readings_delivered_unique"] == BURSTS + 4
    assert verdict.figures["lamp_faults_set"] == verdict.figures["lamp_faults_reported"] == 1
    assert verdict.figures["commands_confirmed"] == 2
    assert verdict.figures["time_error_ms_p95"] == 400
    assert verdict.figures["time_range_ms_p50"] == 2000


def test_times_of_another_boot_of_the_machine_are_left_out(tmp_path: Path) -> None:
    run = Run()
    for row in run.messages[:BURSTS]:
        row["time"]["t_boot_id"] = "another"
        row["time"]["t_max_ms"] = 1
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good
    assert verdict.figures["time_error_ms_p95"] is None


def test_a_harmless_repetition_is_counted_and_good(tmp_path: Path) -> None:
    run = Run()
    run.messages.append(dict(run.messages[0]))
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good
    assert verdict.figures["duplicates"] == 1


@pytest.mark.parametrize("heard", [True, False])
def test_an_advert_names_its_burst_where_a_slow_clock_does_not(
    tmp_path: Path, heard: bool
) -> None:
    """On a loaded machine a board's uptime falls behind: what was advertised still tells."""
    run = Run()
    late: Rows = []
    for row in run.world:
        if row["type"] in ("ping", "sleep"):
            row = row | {"t_s": 100 + (row["t_s"] - 100) * 1.8}
        if row["type"] == "sleep" and heard:
            seq = sum(one["type"] == "sleep" for one in late) + 1
            late.append({"type": "advert", "node": BIN, "counter": seq, "t_s": row["t_s"]})
        late.append(row)
    run.world = late
    for row in run.messages:
        row.pop("time", None)  # such a machine states no range either
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good is heard, verdict.findings


def drop_delivered(run: Run) -> None:
    del run.messages[4]


def drop_everywhere_upstream(run: Run) -> None:
    del run.messages[4], run.stored[4]


def double_in_the_database(run: Run) -> None:
    run.stored.append(dict(run.stored[3]))


def alter_delivered(run: Run) -> None:
    run.messages[5]["distance_mm"] += 10


def alter_in_the_database(run: Run) -> None:
    run.stored[5]["battery_pct"] = 12


def say_another_level(run: Run) -> None:
    run.messages[5]["fill_pct"] -= 0.2


def say_no_level(run: Run) -> None:
    run.messages[5]["fill_pct"] = None


def say_a_level_without_a_container(run: Run) -> None:
    run.world[0]["geometry"] = None


def hear_no_echo(run: Run, fill_pct: float | None) -> None:
    """Let the record 6 have no distance, in every source."""
    nothing = {"distance_mm": records.NO_DISTANCE, "quality": words.QUALITIES.index("no_echo")}
    record = records.unpack(run.flash[BIN][5])._replace(**nothing)
    run.flash[BIN][5] = records.pack_fill(*record[2:])
    for rows in (run.messages, run.stored):
        rows[5] |= content_of(record) | {"fill_pct": fill_pct}


def call_no_echo_empty(run: Run) -> None:
    hear_no_echo(run, 0.0)


def say_that_a_session_proves_a_poll(run: Run) -> None:
    for rows in (run.messages, run.stored):
        rows[-1]["auth"] = "session"


def repeat_with_other_content(run: Run) -> None:
    run.messages.append(dict(run.messages[2], battery_pct=12))


def swap_two_contents(run: Run) -> None:
    for rows in (run.messages, run.stored):
        rows[1]["distance_mm"], rows[2]["distance_mm"] = 1003, 1002


def reorder(run: Run) -> None:
    run.messages[3], run.messages[4] = run.messages[4], run.messages[3]


def cut_the_subscriber_short(run: Run) -> None:
    run.cut = True


def cut_the_world_short(run: Run) -> None:
    run.world.pop()


def invent_a_reading(run: Run) -> None:
    row = Run._payload(BIN, fill(BURSTS + 1))
    run.stored.append(row)
    run.messages.append(row | {"outbox_no": 99})


def forget_to_record_a_burst(run: Run) -> None:
    del run.flash[BIN][6], run.stored[6], run.messages[6]
    run.losses.append(
        {"node": BIN, "epoch": EPOCH, "first_seq": 7, "last_seq": 7, "reason": "unused"}
    )


def declare_lost_what_lies_on_the_flash(run: Run) -> None:
    del run.messages[6], run.stored[6]
    run.losses.append(
        {"node": BIN, "epoch": EPOCH, "first_seq": 7, "last_seq": 7, "reason": "unused"}
    )


def declare_lost_what_arrived(run: Run) -> None:
    run.losses.append(
        {"node": BIN, "epoch": EPOCH, "first_seq": 3, "last_seq": 3, "reason": "crc"}
    )


def loss(first: int, last: int | None, reason: str) -> dict[str, Any]:
    range_ = {"node": BIN, "epoch": EPOCH, "first_seq": first, "last_seq": last}
    return range_ | {"reason": reason, "id": f"loss/{first}"}


def found(first: int, last: int, reason: str = "tail unknown") -> dict[str, Any]:
    of = f"loss/{first}"
    return loss(first, last, reason) | {"kind": "found", "id": f"found/{of}", "of": of}


def leave_a_tail_open_though_the_node_spoke(run: Run) -> None:
    run.losses.append(loss(8, None, "tail unknown"))


def close_a_tail_with_too_high_a_number(run: Run) -> None:
    run.losses += [loss(8, None, "tail unknown"), found(8, BURSTS + 1)]


def close_a_tail_that_was_never_said(run: Run) -> None:
    run.losses.append(found(8, BURSTS))


def say_two_tails_at_once(run: Run) -> None:
    first = BURSTS + 1
    run.losses += [loss(first, None, "tail unknown"), loss(first + 1, None, "tail unknown")]


def hide_behind_a_tail_that_was_closed(run: Run) -> None:
    del run.messages[9], run.stored[9]
    run.losses += [loss(8, None, "tail unknown"), found(8, BURSTS)]


def take_a_refusal_back_and_never_deliver(run: Run) -> None:
    del run.messages[4]
    run.losses += [loss(5, 5, "refused"), found(5, 5, "refused")]


def drop_what_no_loss_declares(run: Run) -> None:
    run.losses.append(
        {"kind": "dropped", "node": BIN, "epoch": EPOCH, "seq": 5, "outbox_no": 5, "why": "x"}
    )


def forward_without_storing(run: Run) -> None:
    del run.stored[8]


def accept_a_replay(run: Run) -> None:
    run.stored.append(run.stored.pop(2))


def invent_a_result(run: Run) -> None:
    run.flash[LAMP].pop()
    run.stored.pop()
    run.messages.pop()


def answer_twice(run: Run) -> None:
    run.results.append(dict(run.results[0], result="expired"))


def end_the_second(run: Run, result: str, **more: Any) -> None:
    """Let the second command have not been applied, in every source."""
    run.commands[1] |= {"t_s": 0.0, "ttl_s": 30}
    run.results[1] |= {"result": result} | more
    outcome = words.OUTCOMES.index("refused" if result == "refused" else "expired")
    record = records.unpack(run.flash[LAMP][3])
    ended = outcome << 4 | records.lamp_event(record)
    run.flash[LAMP][3] = run.flash[LAMP][3][:15] + bytes([ended]) + run.flash[LAMP][3][16:]
    for rows in (run.messages, run.stored):
        rows[-1] |= content_of(records.unpack(run.flash[LAMP][3]))


def expire_what_lives(run: Run) -> None:
    end_the_second(run, "expired")


def give_up_a_lamp_within_a_commands_life(run: Run) -> None:
    end_the_second(run, "unreachable")


def supersede_by_nothing(run: Run) -> None:
    end_the_second(run, "superseded")


def refuse_what_is_right(run: Run) -> None:
    end_the_second(run, "refused", command_no=None)


def answer_with_another_level(run: Run) -> None:
    run.results[1] |= {"level_pct": 41, "reason": "override"}


def never_answer(run: Run) -> None:
    run.results.pop()


def say_everywhere(run: Run, seq: int, faults: int) -> None:
    """Let the lamp's record `seq` carry other faults in every source: only the world knows."""
    packed = run.flash[LAMP][seq - 1]
    run.flash[LAMP][seq - 1] = packed[:14] + bytes([faults]) + packed[15:]
    for row in run.stored + run.messages:
        if (row["node"], row["seq"]) == (LAMP, seq):
            row["faults"] = faults


def hide_a_lamp_fault(run: Run) -> None:
    say_everywhere(run, 1, 0)


def never_end_a_lamp_fault(run: Run) -> None:
    for seq in (2, 3, 4):
        say_everywhere(run, seq, 1)


def invent_a_lamp_fault(run: Run) -> None:
    say_everywhere(run, 3, 1)


def mistake_a_lamp_fault(run: Run) -> None:
    say_everywhere(run, 1, 2)


def date_a_reading_too_early(run: Run) -> None:
    for end in ("min", "max"):
        run.messages[5]["time"][f"t_{end}_ms"] -= 2000


def date_a_reading_too_late(run: Run) -> None:
    for end in ("min", "max"):
        run.messages[5]["time"][f"t_{end}_ms"] += 2000


def call_a_reading_otherwise(run: Run) -> None:
    run.messages[3]["id"] = f"{BIN}/{EPOCH}/{BURSTS + 40}"


def leave_out_a_place(run: Run) -> None:
    del run.messages[3]["gw_epoch"]


def let_two_readings_have_one_place(run: Run) -> None:
    run.messages[3]["outbox_no"] = run.messages[2]["outbox_no"]


def let_a_loss_have_a_reading_s_place(run: Run) -> None:
    run.losses.append(loss(BURSTS + 1, None, "tail unknown") | {"outbox_no": 3})


def let_two_results_have_one_place(run: Run) -> None:
    run.results = [row | {"outbox_no": 50} for row in run.results]


def take_back_under_another_id(run: Run) -> None:
    run.losses += [loss(8, None, "tail unknown"), found(8, BURSTS) | {"id": "found/another"}]


# Each lie and what it must be found as: another finding must not hide that this one is missing.
LIES: list[tuple[Callable[[Run], None], str]] = [
    (drop_delivered, f"not delivered: {BIN}/9/5"),
    (drop_everywhere_upstream, f"unaccounted: {BIN}/9/5"),
    (double_in_the_database, f"stored twice: {BIN}/9/4"),
    (alter_delivered, "flash against delivered: ['distance_mm 1006 != 1016']"),
    (alter_in_the_database, "database against delivered: ['battery_pct 12 != 90']"),
    (say_another_level, "fill_pct 99.2, not 99.4"),
    (say_no_level, "fill_pct None, not 99.4"),
    (say_a_level_without_a_container, "fill_pct 99.9, not None"),
    (call_no_echo_empty, "fill_pct 0.0, not None"),
    (say_that_a_session_proves_a_poll, "auth 'session' of a reading via modbus"),
    (repeat_with_other_content, f"altered: {BIN}/9/3: repeated with"),
    (swap_two_contents, "flash against delivered: ['distance_mm 1002 != 1003']"),
    (reorder, f"reordered: {BIN}/9/4"),
    (cut_the_subscriber_short, "subscriber.jsonl: line 19 is not JSON"),
    (cut_the_world_short, "world.jsonl: cut short"),
    (invent_a_reading, f"invented: {BIN}/9/13"),
    (forget_to_record_a_burst, f"not recorded: {BIN} wake 7"),
    (declare_lost_what_lies_on_the_flash, f"false loss: {BIN}/9/7: declared unused, yet on flash"),
    (declare_lost_what_arrived, f"false loss: {BIN}/9/3: declared crc, yet delivered"),
    (forward_without_storing, f"not stored: {BIN}/9/9"),
    (leave_a_tail_open_though_the_node_spoke, "number 8 came, yet the tail from 8 stands"),
    (close_a_tail_with_too_high_a_number, f"unaccounted: {BIN}/9/13"),
    (close_a_tail_that_was_never_said, "taken back: loss/8: no such loss was said"),
    (say_two_tails_at_once, "2 tails stand at once"),
    (hide_behind_a_tail_that_was_closed, f"unaccounted: {BIN}/9/10"),
    (take_a_refusal_back_and_never_deliver, f"unaccounted: {BIN}/9/5"),
    (drop_what_no_loss_declares, f"dropped: {BIN}/9/5"),
    (expire_what_lives, "c2: said to be expired after 1.0 s"),
    (give_up_a_lamp_within_a_commands_life, "c2: said to be unreachable after 1.0 s"),
    (supersede_by_nothing, "c2: said to be superseded"),
    (refuse_what_is_right, "c2: refused, though nothing is wrong with it"),
    (answer_with_another_level, "c2: asked for 40 %, answered 41 %"),
    (accept_a_replay, f"replay accepted: {BIN}/9/3"),
    (invent_a_result, "c2: said to be applied, but the lamp's log applied it 0 times"),
    (answer_twice, "c1: 2 different results, not 1"),
    (never_answer, "c2: 0 different results, not 1"),
    (hide_a_lamp_fault, f"lamp fault unreported: {LAMP}"),
    (never_end_a_lamp_fault, f"lamp fault never ended: {LAMP}"),
    (invent_a_lamp_fault, f"lamp fault invented: {LAMP}/9/3"),
    (mistake_a_lamp_fault, f"lamp fault invented: {LAMP}/9/1: bit 2"),
    (date_a_reading_too_early, f"outside its range: {BIN}/9/6"),
    (date_a_reading_too_late, f"outside its range: {BIN}/9/6"),
    (call_a_reading_otherwise, f"another id: {BIN}/9/4"),
    (leave_out_a_place, f"no place: {BIN}/9/4"),
    (let_two_readings_have_one_place, f"3: {BIN}/9/3 and {BIN}/9/4"),
    (let_a_loss_have_a_reading_s_place, f"3: {BIN}/9/3 and loss/13"),
    (let_two_results_have_one_place, "50: c1 and c2"),
    (take_back_under_another_id, "another id: found/another"),
]


@pytest.mark.parametrize(("lie", "found"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_each_lie_is_found(tmp_path: Path, lie: Callable[[Run], None], found: str) -> None:
    run = Run()
    lie(run)
    run.write(tmp_path)
    verdict = judge(tmp_path)
    said = [*verdict.broken, *map(str, verdict.findings)]
    assert not verdict.good
    assert any(found in line for line in said), said


def test_no_echo_without_a_level_is_good(tmp_path: Path) -> None:
    run = Run()
    hear_no_echo(run, None)
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]


@pytest.mark.parametrize("result", ["expired", "unreachable", "refused"])
def test_results_that_have_their_reason_are_good(tmp_path: Path, result: str) -> None:
    run = Run()
    end_the_second(run, result)
    run.commands[1]["t_s"] = -61.0  # its result arrives 62 s later
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]


def test_a_lamp_that_answers_after_its_reboot_says_its_level_of_then(tmp_path: Path) -> None:
    run = Run()
    run.results[1] |= {"level_pct": 70, "reason": "start"}
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]


def test_losses_that_were_taken_back_or_stand_rightly_are_good(tmp_path: Path) -> None:
    run = Run()
    run.losses += [loss(8, None, "tail unknown"), found(8, BURSTS)]
    run.losses += [loss(5, 5, "refused"), found(5, 5, "refused"), found(5, 5, "refused")]
    run.losses += [loss(BURSTS + 1, None, "tail unknown")] * 2  # sent twice: QoS 1
    del run.messages[6]
    run.losses.append(loss(7, 7, "refused"))
    run.losses.append({"kind": "dropped", "node": BIN, "epoch": EPOCH, "seq": 7})
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]
    assert verdict.figures["declared_lost"] == 1


def test_a_fault_that_could_not_be_seen_need_not_be_reported(tmp_path: Path) -> None:
    """Dimmed low, or mended within the rules' delay: nothing to hold against the lamp."""
    run = Run()
    hide_a_lamp_fault(run)
    next(row for row in run.world if row["type"] == "lamp")["light_pct"] = 8.5
    run.write(tmp_path)
    verdict = judge(tmp_path)
    assert verdict.good, [*verdict.broken, *verdict.findings]
    assert verdict.figures["lamp_faults_set"] == 1
    assert verdict.figures["lamp_faults_reported"] == 0
