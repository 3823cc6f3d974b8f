#!/usr/bin/env python3
"""Plants one bug after the other into a copy of the tree and lets the simulation find it.

Rule: a bug is one replacement in one file; it counts as found only if the run with the seed that
stands here ends within its days with the finding that stands here. docs/testing.md has the list.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mutant_tables.places import MIC_REFUSED, MIC_TAKEN
from mutants import chosen_of, copy_tree
from rich.console import Console
from rich.progress import Progress

_RUN_S = 900
DENSE = 6  # mishaps so many times as often as in a campaign of years
_DAYS_A_YEAR = 365
_RUN = "from kerb_tools.cli import main; main()"


@dataclass(frozen=True)
class Bug:
    """`name` says what is broken; the run with `seed` finds it as `found` within `days`.

    found: what the contract calls it; where one of two shows first by chance, both, with "or".
    """

    name: str
    file: str
    old: str
    new: str
    found: str
    seed: int = 1
    days: int = 12
    dense: int = DENSE


INGEST = "gateway/kerb_gateway/ingest.py"
BACKFILL = "gateway/kerb_gateway/backfill.py"
COMMANDS = "gateway/kerb_gateway/commands.py"
COMMANDMESSAGE = "gateway/kerb_gateway/commandmessage.py"
MODEL = "gateway/kerb_gateway/model.py"
PUBLISHER = "gateway/kerb_gateway/publisher.py"
FLIGHTS = "gateway/kerb_gateway/flights.py"
DATABASE = "gateway/kerb_gateway/store/database.py"
LEDGER = "gateway/kerb_gateway/store/ledger.py"
NATIVE = "gateway/kerb_gateway/uplink/payloads/native.py"
OUTBOX = "gateway/kerb_gateway/store/outbox.py"
RESTORE = "gateway/kerb_gateway/store/restore.py"
RETENTION = "gateway/kerb_gateway/store/retention.py"
LEASES = "gateway/kerb_gateway/leases.py"
TIMELINE = "gateway/kerb_gateway/timeline.py"
TAILS = "gateway/kerb_gateway/tails.py"
ANCHORS = "gateway/kerb_gateway/store/clock_anchors.py"
GROUP_SEED = 3  # a multiple of three: two gateways, each for half the days
THREE_SEED = 12  # a multiple of six: three, each for a third
OUTSIDE = "outside its range"
TWO = "two owners at once or two owners connect"

PLANTED = [
    Bug("ack before commit", BACKFILL,
        "        await self._ingest.commit()\n        await self._acknowledge",
        "        await self._acknowledge", "acked before its commit"),
    Bug("ack one too far", MODEL,
        "return min(gap.first_seq for gap in self.gaps) - 1",
        "return min(gap.first_seq for gap in self.gaps)", "acked before its commit"),
    Bug("PUBACK ends the wrong row", FLIGHTS,
        "flight = self._by_mid.pop(mid, None)",
        "flight = self._by_mid.popitem()[1] if self._by_mid else None", "mark too far"),
    Bug("row ends without its PUBACK", PUBLISHER,
        "self._flying.add(self._broker.publish(topic, payload), rows)",
        "self._broker.publish(topic, payload)\n        self._delivered(rows, 0)",
        "mark too far"),
    Bug("refused message thrown away", PUBLISHER,
        "self._refused.append((row, reason))", "self._outbox.ended(row.outbox_no)",
        "mark too far"),
    Bug("refused batch taken for delivered", PUBLISHER,
        "self._alone.update(row.outbox_no for row in rows)\n"
        "            self._again(rows)",
        "self._delivered(rows, 0)", "mark too far"),
    Bug("quota exceeded taken for delivered", PUBLISHER,
        "elif verdict(reason) == HOLD:\n            self._held(rows)",
        "elif verdict(reason) == HOLD:\n            self._delivered(rows, 0)", "mark too far"),
    Bug("put off for the moment taken for delivered", PUBLISHER,
        "heapq.heappush(self._later, (due_s, row.outbox_no, row))",
        "self._outbox.ended(row.outbox_no)", "mark too far"),
    Bug("an owed PUBACK taken for one that came", PUBLISHER,
        "self._broker.renew()", "self._delivered(overdue.rows, 0)",
        "mark too far or an owed PUBACK is not asked for"),
    Bug("an owed PUBACK is waited for without end", PUBLISHER,
        "        if overdue is not None:\n", "        if False:\n",
        "an owed PUBACK is not asked for"),
    Bug("mark passes rows that did not end", OUTBOX,
        "while self._order and self._order[0] in self._ended:", "while self._order:",
        "mark too far"),
    Bug("done-mark off by one at a start", OUTBOX,
        "self.in_hand = int(rows[0][0]) if rows else 0",
        "self.in_hand = int(rows[0][0]) + 1 if rows else 0", "mark too far"),
    Bug("the cursor skips a row", PUBLISHER,
        "self._cursor = rows[-1].outbox_no",
        "self._cursor = rows[-1].outbox_no + 1", "mark too far"),
    Bug("gap one too short", INGEST,
        "stream.gaps.append(Gap(stream.last_seq + 1, seq - 1))",
        "stream.gaps.append(Gap(stream.last_seq + 1, seq - 2))", "the gateway's own alarm"),
    Bug("gap lost at a split", MODEL,
        "            if gap.last_seq > last_seq:\n", "            elif gap.last_seq > last_seq:\n",
        "the gateway's own alarm"),
    Bug("a filled gap stays open", INGEST,
        "                stream.close(row.seq, row.seq)\n", "", "stored twice"),
    Bug("gaps written only when their number changes",
        "gateway/kerb_gateway/store/batch.py",
        "if ranges != stream.written_gaps:",
        "if len(ranges) != len(stream.written_gaps):", "acked before its commit"),
    Bug("digests forgotten at a start", LEDGER,
        "                numbered[stream_no].remember(seq, digest)\n",
        "                pass\n", "a repetition was taken for a replay"),
    Bug("outbox numbers come back", LEDGER,
        "self._next_outbox = rows[0][0] + 1", "self._next_outbox = rows[0][0]",
        "outbox number used again"),
    Bug("replay accepted", INGEST,
        "return DUPLICATE if authenticated else REPLAY", "return ACCEPTED",
        "stored twice or false loss"),
    Bug("live advert inside a gap stored", INGEST,
        "        if kind == ACCEPTED:\n            self._accept(stream",
        "        if kind != DUPLICATE:\n            self._accept(stream",
        "live below the watermark"),
    Bug("jump limit not enforced", INGEST,
        "if seq - stream.last_seq > JUMP_LIMIT and not authenticated:", "if False:",
        "a jump was believed"),
    Bug("other content under a known number stored", INGEST,
        "return DUPLICATE if known == digest else TAMPERED",
        "return DUPLICATE if known == digest else ACCEPTED", "stored twice"),
    Bug("MIC not compared", "gateway/kerb_gateway/crypto.py", MIC_REFUSED, MIC_TAKEN,
        "altered or a tail ends where no word did"),
    Bug("a new epoch forgets the old one's tail", INGEST,
        "ended = [] if old is None else [old]", "ended = []",
        "tail not declared"),
    Bug("a lamp's ended epoch keeps its gaps", "gateway/kerb_gateway/links/modbus.py",
        "            self._ingest.give_up_ended(stream)", "            pass",
        "neither arrived nor declared", 4),
    Bug("a lamp's log is believed to be of the epoch before",
        "gateway/kerb_gateway/links/modbus.py",
        "        if epoch != stream.epoch:\n", "        if False:\n", "altered", 142),
    Bug("a bin's ended epoch is given up", BACKFILL,
        "        for ended in self._ingest.ended(readings):",
        "        self._ingest.give_up_ended(readings)\n"
        "        for ended in self._ingest.ended(readings):", "false loss", 2),
    Bug("a loss is not said", LEDGER, "        self._send(LOSS, self._next_loss)\n", "",
        "no outbox row"),
    Bug("a dead letter has another payload", OUTBOX,
        "            message.payload,\n            reason,",
        "            message.payload[:-1] + b',\"event\":\"tilt\"}',\n            reason,",
        "dead letter altered"),
    Bug("lost range one too long", INGEST,
        "min(gap.last_seq, row.last_seq))\n            for gap",
        "min(gap.last_seq, row.last_seq + 1))\n            for gap", "false loss"),
    Bug("full disk drops the batch", LEDGER,
        "            self._batch = batch.followed_by(self._batch)\n", "",
        "acked before its commit"),
    Bug("an I/O error is survived", DATABASE,
        "                self._failure = translated\n", "                pass\n",
        "wrote on after an I/O error", seed=4),
    Bug("retention removes undelivered rows", RETENTION,
        'min(hour.outbox_no, done), "")', 'hour.outbox_no, "")', "undelivered row removed"),
    Bug("what the size removes is not declared", RETENTION,
        "            self._ledger.add_loss(loss, self._clock.now())\n", "",
        "undelivered reading removed or the gateway's own alarm"),
    Bug("command number reused", COMMANDS,
        "self._next_no = rows[0][0] + 1 if rows[0][0]", "self._next_no = rows[0][0] if rows[0][0]",
        "the process ended by itself"),
    Bug("repeated command taken again", COMMANDS,
        "        return bool(rows)", "        return False", "the process ended by itself"),
    Bug("sent command forgotten at a start", COMMANDS,
        "where state != 'done' order by", "where state = 'accepted' order by", "no result"),
    Bug("command stored as sent is superseded", COMMANDS,
        "            command.sent = True\n            # Stored first",
        "            # Stored first", "applied after its result or a false result"),
    Bug("unanswered command called applied", COMMANDS,
        'self._end(command, "unreachable", detail=why)',
        'self._end(command, "applied", detail=why)', "a false result"),
    Bug("a command lives a minute too long", COMMANDS,
        'came_ms + fields["ttl_s"] * 1000', 'came_ms + fields["ttl_s"] * 1000 + 60_000',
        "another life than asked"),
    Bug("a command's life begins when it is stored", COMMANDS,
        'came_ms + fields["ttl_s"]', 'self._clock.boottime_ms() + fields["ttl_s"]',
        "another life than asked"),
    Bug("a command is expired a minute early", COMMANDS,
        "self._clock.boottime_ms() >= command.expires_ms and",
        "self._clock.boottime_ms() >= command.expires_ms - 60_000 and", "a false result"),
    Bug("a command goes to another lamp", COMMANDS,
        "                command.node,\n                {",
        "                next(one for one in self._nodes.values() if one.bus),\n                {",
        "at another lamp than asked"),
    Bug("no lamp is turned off", COMMANDS,
        '"new_level_pct": command.level_pct', '"new_level_pct": command.level_pct or 5',
        "at a lamp otherwise than asked"),
    Bug("expired is called superseded", COMMANDS,
        '"expired", detail="its life', '"superseded", detail="its life', "a false result"),
    Bug("a lamp is given up before its time to answer is over", COMMANDS,
        "command.expires_ms + settle_ms", "command.expires_ms - settle_ms", "a false result"),
    Bug("the brightest level is refused", COMMANDMESSAGE,
        '"level_pct": (int, 0, 100, True)', '"level_pct": (int, 0, 99, True)', "a false result"),
    Bug("outbox numbers come back with a restore", RESTORE,
        "    execute(\"insert or replace into meta values ('gw_epoch', ?)\", [fresh])\n", "",
        "outbox number used again", seed=2),
    Bug("a recording is believed after a restore", RESTORE,
        '    execute("update streams set held = 1")\n', "", "a recording was believed", seed=2),
    Bug("a reading's id has its row's number", NATIVE,
        'id_ = f"{node}/{origin.epoch}/{reading.seq}"',
        'id_ = f"{node}/{origin.epoch}/{reading.reading_no}"', "another id"),
    Bug("a loss goes out under its own number", OUTBOX,
        "Outgoing(outbox_no, topic, self._payloads.numbered(payload, outbox_no))",
        "Outgoing(outbox_no, topic, self._payloads.numbered(payload, row_no))",
        "from an unknown row or from another row"),
    Bug("a message keeps the gw_epoch that it was made with", NATIVE,
        "return _encode(msgspec.json.decode(payload, type=dict[str, Any]) | more)",
        "return _encode(more | msgspec.json.decode(payload, type=dict[str, Any]))",
        "of another gw_epoch", seed=2),
    Bug("the gw_epoch of before a restore goes on", DATABASE,
        "self.gw_epoch = str(row[0])",
        "self.gw_epoch = str((connection.execute(\"select json_extract(before, '$[0]') \"\n"
        "            \"from restores order by restore_no desc\").fetchone() or row)[0])",
        "of another gw_epoch", seed=2),
    Bug("a restore says of its own gw_epoch that it is over", RESTORE,
        'over += [row["gw_epoch"] for row in rows[:-1]]',
        'over += [row["gw_epoch"] for row in rows]', "another id", seed=2),
    Bug("a tail is taken back under another id", LEDGER,
        "stream.last_seq, TAIL, stream.tail_no)", "stream.last_seq, TAIL, self._next_loss)",
        "taken back what was never said"),
    Bug("a tail keeps its id over a restore", RESTORE,
        '"update losses set gw_epoch = ? where loss_no = ?"',
        '"update losses set gw_epoch = ? where loss_no = -?"',
        "taken back what was never said", seed=2),
    Bug("two ranges of one boot have one id", ANCHORS,
        '/range/{_end(start.low_ms)}/{_end(start.high_ms)}"', '/range"', "one id for two", seed=2),
    Bug("clock anchor of the wrong boot", ANCHORS,
        "Offset(*offset_at(boot.anchors, boottime_ms))",
        "Offset(*offset_at(self.boots[-1].anchors or boot.anchors, boottime_ms))", OUTSIDE),
    Bug("an anchor is as sure days away", "gateway/kerb_gateway/anchor.py",
        "anchor.uncertainty_ms + drifted_ms(boottime_ms - anchor.boottime_ms)",
        "anchor.uncertainty_ms // 8", OUTSIDE),
    Bug("drift is added on the wrong side", TIMELINE,
        "1 + self._drift if node_ms >= 0 else 1 - self._drift",
        "1 - self._drift if node_ms >= 0 else 1 + self._drift", OUTSIDE),
    Bug("a sleeping clock's range too narrow", TIMELINE,
        "SLEEPING_DRIFT = 0.10", "SLEEPING_DRIFT = 0.05", OUTSIDE),
    Bug("uptimes of two boots are compared", TIMELINE,
        "same = [one for one in contacts if one.node_boot_no == stamp.node_boot_no]",
        "same = list(contacts)", OUTSIDE),
    Bug("the newest number at a contact was made after it", TIMELINE,
        "            if stamp.seq > contact.last_seq:",
        "            if stamp.seq >= contact.last_seq:", OUTSIDE),
    Bug("a reading's axis is not said", "gateway/kerb_gateway/uplink/payloads/times.py",
        "axis = reading.t_boot_id or boot_id", "axis = boot_id", OUTSIDE),
    Bug("lease overlap: an owner does not stop by its own clock", LEASES,
        "            self._expire(state, now_ms)\n            if state.heard_ms",
        "            if state.claim is not None:\n"
        "                state.claim.since_ms = now_ms\n            if state.heard_ms",
        TWO, GROUP_SEED, 24),
    Bug("lease overlap: others wait less than a lease", LEASES,
        "_WAIT_PCT = 105", "_WAIT_PCT = 50", TWO, GROUP_SEED, 24),
    Bug("owner before its claim came back", LEASES,
        "state.claim = _Claim(state.generation, now_ms)",
        "state.claim = _Claim(state.generation, now_ms, True)", TWO, GROUP_SEED, 24),
    Bug("a told generation is not respected", LEASES,
        "        if claim is not None and claim.confirmed and generation <= claim.generation:",
        "        if generation <= state.generation and state.others:", TWO, GROUP_SEED, 24),
    Bug("a dead owner keeps its nodes", LEASES,
        "any(now_ms < other.until_ms for other in self.others.values())",
        "bool(self.others)", "nobody owns a node", GROUP_SEED, 30, 1),
    Bug("one gateway's release ends every other's claim", LEASES,
        "                state.others.pop(gateway, None)\n            else:",
        "                state.others.clear()\n            else:", TWO, THREE_SEED),
    Bug("a node that nobody owns is visited", "gateway/kerb_gateway/assembly.py",
        "owned=group.owned if group else None",
        'owned=(lambda node: group.place(node) != "elsewhere") if group else None',
        "a visit without a lease", GROUP_SEED),
    Bug("acknowledged is taken for delivered", "gateway/kerb_gateway/progress.py",
        "if outbox_done < self._pending_no:", "if False:", "said to be delivered",
        GROUP_SEED, 24),
    Bug("no echo is empty", "gateway/kerb_gateway/bins/geometry.py",
        "quality not in _TRUSTED:\n        return None",
        "quality not in _TRUSTED:\n        return 0.0", "altered"),
    Bug("a polled record has a session's proof", "gateway/kerb_gateway/links/modbus.py",
        'via="modbus", auth="none"', 'via="modbus", auth="session"', "altered"),
    Bug("a result's reason is no lamp's", COMMANDS,
        'reason=REASONS[status["reason"]] if status["reason"] < len(REASONS) else None',
        "reason=REASONS[0]", "a false result"),
    Bug("a result names itself as the newer one", COMMANDS,
        'detail=f"by {command.command_id}"', 'detail=f"by {older.command_id}"',
        "a false result"),
    Bug("a silence is never said", TAILS,
        "silent = [s for s in mine if self.silent_s(s) >= self._limit_of(s.node)]",
        "silent = mine[:0]", "a silence without its tail"),
    Bug("a silence is said too early", TAILS,
        "silent = [s for s in mine if self.silent_s(s) >= self._limit_of(s.node)]",
        "silent = [s for s in mine if self.silent_s(s) >= self._limit_of(s.node) / 2]",
        "a tail said too early"),
    Bug("a restored owner forgets an epoch that it never heard", INGEST,
        "ended + self.elsewhere.ended(node, epoch)", "ended",
        "neither arrived nor declared", 90),
    Bug("an answer counts from when the disk had room", INGEST,
        "self._contact(stream, heard_ms)", "self._contact(stream, self._clock.boottime_ms())",
        "a silence without its tail", 35),
    Bug("a silence that is over is counted on after a kill", INGEST,
        "if stream.silence_noted:", "if False:", "a tail said too early", 2),
    Bug("a restart begins a silence anew", TAILS,
        "self._before_s = {stream_no: float(silent_s) for stream_no, silent_s in rows}",
        "self._before_s = {}", "a silence without its tail"),
    Bug("a tail ends one too far", LEDGER,
        "stream.tail_seq, stream.last_seq, TAIL, stream.tail_no)",
        "stream.tail_seq, stream.last_seq + 1, TAIL, stream.tail_no)",
        "a tail ends where no word did"),
    Bug("a tail is taken back again and again", LEDGER,
        "        stream.tail_no = None\n", "", "taken back, but not said"),
    Bug("nonce reuse: numbers come back after a loss of power", "firmware/kerb_node/sequence.py",
        "            self._store.set_int(_KEY, self.block_end)\n", "", "a nonce used twice"),
]  # fmt: skip


def run_in(tree: Path, seed: int, days: float, dense: int = DENSE) -> tuple[str, str]:
    """Simulate with the code of `tree`; returns (the finding, or "", what went wrong)."""
    paths = os.pathsep.join(str(tree / name) for name in ("shared", "gateway", "tools"))
    years = str(days / _DAYS_A_YEAR)
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _RUN, "simulate", "--json", "--jobs", "1",
             "--seed", str(seed), "--years", years, "--dense", str(dense)],
            cwd=tree, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
            timeout=_RUN_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", f"no end within {_RUN_S} s"
    if answer.returncode not in (0, 1) or not answer.stdout:
        return "", answer.stderr[-300:]
    return json.loads(answer.stdout.splitlines()[-1])["figures"].get("finding", ""), ""


def try_bug(tree: Path, bug: Bug) -> str:
    """Return "" if the bug is found as its entry says, else what is wrong."""
    path = tree / bug.file
    text = path.read_text()
    if text.count(bug.old) != 1:
        return f"its text stands {text.count(bug.old)} times in {bug.file}"
    path.write_text(text.replace(bug.old, bug.new))
    try:
        finding, wrong = run_in(tree, bug.seed, bug.days, bug.dense)
    finally:
        path.write_text(text)
    if finding.split(":")[0] in bug.found.split(" or "):
        return ""
    return wrong or f"found as {finding!r}" if finding or wrong else "not found"


def main(arguments: list[str]) -> int:
    """Try every bug, or those that were asked for."""
    wanted = chosen_of(PLANTED, (__doc__ or "").split("\n")[0], arguments)
    missed = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(console=Console(stderr=True)) as progress,
    ):
        copy_tree(Path(scratch))
        task = progress.add_task("planted", total=len(wanted))
        for bug in wanted:
            progress.update(task, description=bug.name)
            began = time.monotonic()
            why = try_bug(Path(scratch), bug)
            missed += bool(why)
            took = f"seed {bug.seed}, {time.monotonic() - began:.0f} s"
            print(f"{'MISSED' if why else 'found '}  {bug.name} ({took}): {why or bug.found}")
            progress.advance(task)
    print(f"{len(wanted) - missed}/{len(wanted)}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
