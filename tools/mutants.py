#!/usr/bin/env python3
"""Breaks each mechanism on purpose and expects its test to fail: a test that cannot fail is none.

Rule: a mutant is one replacement in one file of a copy of the tree; a test that stays green, or a
text that is no longer there, is a failure of this run. docs/testing.md lists the same names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

TOP = Path(__file__).resolve().parents[1]
_TEST_S = 180


@dataclass(frozen=True)
class Mutant:
    """`name` says what is broken; `test` is what must turn red."""

    name: str
    file: str
    old: str
    new: str
    test: str


INGEST = "gateway/tests/test_ingest.py"
HIL_BIN = "hil_tests/test_bin.py"
HIL_LAMP = "hil_tests/test_lamp.py"
STREET = "tools/tests/test_end_to_end.py"
POWER_STREET = "tools/tests/test_power_street.py"
COMMANDS = "gateway/tests/test_commands.py"
NODES_MQTT = "gateway/tests/test_nodes_mqtt.py"
_MIC_REFUSED = 'raise RemoteFault(MIC, "the message integrity code does not match") from None'
_MIC_TAKEN = (
    "from kerb_wire import ccm\n\n            return ccm._crypt(new_ecb(key), nonce, ciphertext)"
)

MUTANTS = [
    Mutant("ack before commit", "gateway/kerb_gateway/backfill.py",
           "        await self._ingest.commit()\n        await self._acknowledge",
           "        await self._acknowledge",
           "gateway/tests/test_backfill.py::test_gaps_are_fetched_and_acked_after_the_commit"),
    Mutant("outbox ends without puback", "gateway/kerb_gateway/publisher.py",
           "self._flying[self._broker.publish(topic, payload)] = rows",
           "self._broker.publish(topic, payload)\n"
           "            self._delivered(rows, 0)",
           "gateway/tests/test_publisher.py::test_rows_end_only_on_puback_and_the_window_holds"),
    Mutant("refused message thrown away", "gateway/kerb_gateway/publisher.py",
           'self._refused.append((rows[0], f"0x{reason:02x}"))',
           "self._outbox.ended(rows[0].outbox_no)",
           "gateway/tests/test_publisher.py::test_rows_end_only_on_puback_and_the_window_holds"),
    Mutant("mark passes rows that did not end", "gateway/kerb_gateway/store/outbox.py",
           "while self._order and self._order[0] in self._ended:", "while self._order:",
           "gateway/tests/test_publisher.py::test_rows_end_only_on_puback_and_the_window_holds"),
    Mutant(
        "late answer taken for the next",
        "gateway/kerb_gateway/links/modbus.py",
        "if answer.registers[0] != token:",
        "if False:",
        "gateway/tests/test_modbus_link.py",
    ),
    Mutant(
        "cancelled batch dropped",
        "gateway/kerb_gateway/store/database.py",
        "asyncio.shield(loop.run_in_executor(self._thread, work, *arguments))",
        "loop.run_in_executor(self._thread, work, *arguments)",
        f"{INGEST}::test_a_cancelled_commit_is_still_written",
    ),
    Mutant("gap one too short", "gateway/kerb_gateway/ingest.py",
           "stream.gaps.append(Gap(stream.last_seq + 1, seq - 1))",
           "stream.gaps.append(Gap(stream.last_seq + 1, seq - 2))", INGEST),
    Mutant("MIC not compared", "shared/kerb_wire/ccm.py",
           "if not same(wanted, tag):", "if False:", "shared/tests/test_contract.py"),
    Mutant("MIC not compared by the host's cipher", "gateway/kerb_gateway/crypto.py",
           _MIC_REFUSED, _MIC_TAKEN, INGEST),
    Mutant("a message ends before its commit", "gateway/kerb_gateway/links/nodes_mqtt.py",
           "self._waiting[0].durable_at <= commits", "self._waiting[0].durable_at <= commits + 1",
           f"{NODES_MQTT}::test_a_bundle_is_answered_after_its_commit_and_not_before"),
    Mutant("a running commit counts for what came since", "gateway/kerb_gateway/ingest.py",
           "self.commits + (2 if self._lock.locked() else 1)", "self.commits + 1",
           f"{NODES_MQTT}::test_what_comes_during_a_commit_waits_for_the_next"),
    Mutant("a retained message is a reading", "gateway/kerb_gateway/links/nodes_mqtt.py",
           "if message.retained:", "if False:",
           f"{NODES_MQTT}::test_a_retained_message_is_no_reading"),
    Mutant("the window is not kept", "gateway/kerb_gateway/links/mqtt.py",
           "if self._unacked >= self._part.window:", "if False:",
           f"{NODES_MQTT}::test_the_window_bounds_what_waits_and_a_full_one_commits"),
    Mutant("what is in memory is overtaken by the file", "gateway/kerb_gateway/store/outbox.py",
           "rows = [row for row in rows if row[0] < self._fresh.first_no]", "pass",
           "gateway/tests/test_fresh.py"),
    Mutant("memory runs ahead of the file", "gateway/kerb_gateway/store/outbox.py",
           "if rows and rows[0][0] == self.in_hand + 1 and", "if rows and",
           "gateway/tests/test_fresh.py"),
    Mutant("peer chooses the tag length", "shared/kerb_wire/ccm.py",
           "if len(tag) != tag_bytes:", "if len(tag) > tag_bytes:",
           "shared/tests/test_contract.py"),
    Mutant("replay stored", "gateway/kerb_gateway/ingest.py",
           "return DUPLICATE if authenticated else REPLAY", "return ACCEPTED", INGEST),
    Mutant("live advert fills a gap", "gateway/kerb_gateway/ingest.py",
           "return FILLED if authenticated else HELD_BACK", "return FILLED", INGEST),
    Mutant("jump limit off by one", "gateway/kerb_gateway/ingest.py",
           "if seq - stream.last_seq > JUMP_LIMIT", "if seq - stream.last_seq >= JUMP_LIMIT",
           INGEST),
    Mutant("digests forgotten", "gateway/kerb_gateway/ingest.py",
           "return DUPLICATE if known == digest else TAMPERED", "return DUPLICATE", INGEST),
    Mutant("outbox numbers come back", "gateway/kerb_gateway/store/ledger.py",
           "self._next_outbox = rows[0][0] + 1", "self._next_outbox = 1", INGEST),
    Mutant("tail of an old epoch forgotten", "gateway/kerb_gateway/ingest.py",
           "                if old is not None:\n", "                if False:\n", INGEST),
    Mutant("command number reused", "gateway/kerb_gateway/commands.py",
           "self._next_no = rows[0][0] + 1", "self._next_no = max(1, rows[0][0])", COMMANDS),
    Mutant("repeated command taken again", "gateway/kerb_gateway/commands.py",
           "        return bool(rows)", "        return False", COMMANDS),
    Mutant("unknown keys taken", "gateway/kerb_gateway/config.py",
           'extra="forbid"', 'extra="ignore"', "gateway/tests/test_config.py"),
    Mutant("number used before it is reserved", "firmware/kerb_node/sequence.py",
           "            self._store.set_int(_KEY, self.block_end)\n", "",
           f"{HIL_BIN}::test_power_cut_resumes_behind_the_reserved_block"),
    Mutant("RTC memory believed after a reset",
        "firmware/kerb_node/bin.py",
        ' if supervisor.cause == "deep_sleep" else None\n'
        "        # Good for this wake only: if it is broken off, its numbers may have been used "
        "already.\n"
        '        sleep.retain(b"")\n',
        "\n",
        f"{HIL_BIN}::test_reset_in_the_middle_of_a_wake"),
    Mutant("advert before the record", "firmware/kerb_node/bin.py",
           "            self._log.append(record)\n", "",
           f"{HIL_BIN}::test_boot_makes_a_record_before_its_advert"),
    Mutant("no echo is empty", "firmware/kerb_node/fill/estimate.py",
           "return NO_DISTANCE, SIGMA_MAX_MM, OUT_OF_RANGE if heard else NO_ECHO, 0",
           "return reach_mm, SIGMA_MAX_MM, GOOD, 0", f"{HIL_BIN}::test_no_echo_is_not_empty"),
    Mutant("temperature ignored", "firmware/kerb_node/fill/sound.py",
           "sqrt(1 + temperature_dc / 2731.5)", "sqrt(1 + 150 / 2731.5)",
           f"{HIL_BIN}::test_temperature_is_taken_into_account"),
    Mutant("watchdog never started", "firmware/kerb_node/app.py",
           "    supervisor.watch(settings.watchdog_ms)\n", "",
           f"{HIL_BIN}::test_a_frozen_application_is_restarted_by_the_watchdog"),
    Mutant("lamp applies a number twice", "firmware/kerb_node/lamp.py",
           "        if number == self.command_no:\n            return\n", "",
           f"{HIL_LAMP}::test_a_command_sets_the_level_once"),
    Mutant("lamp applies an expired command", "firmware/kerb_node/lamp.py",
           "return _EXPIRED if life_s == 0 else _APPLIED", "return _APPLIED",
           f"{HIL_LAMP}::test_an_override_ends_and_a_dead_command_is_not_applied"),
    Mutant("lamp forgets its level",
        "firmware/kerb_node/lamp.py",
        "        if kept.override:\n",
        "        if False:\n",
        f"{HIL_LAMP}::test_the_level_survives_a_watchdog_reset"),
    Mutant("a flicker is a lamp failure", "firmware/kerb_node/light/faults.py",
           "if now_ms - self._since_ms < self._after_ms:", "if False:",
           "firmware/tests/test_pure_node.py"),
    Mutant("a lamp dimmed low has failed", "firmware/kerb_node/light/faults.py",
           "if load_ma is None or low_ma < LEAST_MA:", "if load_ma is None:",
           "firmware/tests/test_pure_node.py"),
    Mutant("a lamp without supply has failed", "firmware/kerb_node/light/faults.py",
           "if settled and starves is False else None", "if settled else None",
           "firmware/tests/test_pure_node.py"),
    Mutant("a cycling lamp fills the log", "firmware/kerb_node/light/announce.py",
           "    return bits & ~FAULT_LAMP_FAILURE if bits & FAULT_CYCLING else bits\n",
           "    return bits\n", "firmware/tests/test_pure_node.py"),
    Mutant("a known fault is forgotten", "firmware/kerb_node/lamp.py",
           "            faults = row.faults\n", "",
           f"{HIL_LAMP}::test_a_known_fault_is_not_said_anew_after_power_on"),
    Mutant("checker misses a hidden lamp fault", "tools/kerb_check/lampfaults.py",
           "        if not reported and _visible", "        if False and _visible",
           "tools/tests/test_checker.py"),
    Mutant(
        "copied flash believed",
        "firmware/kerb_node/identity.py",
        "if row.node_id != own_node_id():",
        "if False:",
        "firmware/tests/test_bin_life.py::test_a_copied_flash_is_refused",
    ),
    Mutant(
        "overwritten called unused",
        "firmware/kerb_node/readinglog.py",
        "        return _OVERWRITTEN\n",
        "        return _UNUSED\n",
        "firmware/tests/test_pure_node.py",
    ),
    Mutant("a refused batch takes its readings along", "gateway/kerb_gateway/publisher.py",
           "elif reason >= _REFUSED and len(rows) > 1:", "elif False:",
           "gateway/tests/test_publisher.py"
           "::test_a_backlog_travels_together_and_a_refused_batch_alone"),
    Mutant("a full disk drops the batch", "gateway/kerb_gateway/store/ledger.py",
           "            self._batch = batch.followed_by(self._batch)\n", "",
           "gateway/tests/test_store.py::test_memory_is_bounded_while_the_disk_is_full"),
    Mutant("what the size removes is not declared", "gateway/kerb_gateway/store/retention.py",
           "            self._ledger.add_loss(loss, self._clock.now())\n", "",
           "gateway/tests/test_store.py"
           "::test_undelivered_rows_go_by_size_only_and_are_declared"),
    Mutant("what is on its way is given up", "gateway/kerb_gateway/store/retention.py",
           "[self._ledger.outbox.in_hand, outbox_no]", "[0, outbox_no]",
           "gateway/tests/test_store.py"
           "::test_undelivered_rows_go_by_size_only_and_are_declared"),
    Mutant("a damaged file is used on", "gateway/kerb_gateway/store/database.py",
           "            quarantine.suspect(self._path)\n            return StoreCorrupt(text)",
           "            return StoreCorrupt(text)",
           "gateway/tests/test_store.py"
           "::test_a_damaged_file_is_put_aside_and_a_new_one_begun"),
    Mutant("one try a door", "gateway/kerb_gateway/backfill.py",
           "_DOOR_TRIES = 3", "_DOOR_TRIES = 1",
           "gateway/tests/test_backfill.py::test_what_fails_is_tried_again_while_the_door_is_open"),
    Mutant("service mode waits for another advert", "gateway/kerb_gateway/backfill.py",
           "if not self._in_service(attempts):", "if True:",
           "gateway/tests/test_backfill.py"
           "::test_a_node_in_service_is_called_on_without_a_second_advert"),
    Mutant("any kernel may scan passively", "gateway/kerb_gateway/links/ble.py",
           "if not hears_repeats_passively(self._kernel):", "if False:",
           "tools/tests/test_air.py::test_the_link_scans_passively_where_that_hears_repeats"),
    Mutant("silence is not noticed", "gateway/kerb_gateway/links/ble.py",
           "while loop.time() - self._heard_at < self._deaf_after_s:", "while True:",
           "tools/tests/test_air.py::test_the_link_survives_the_death_of_bluetoothd"),
    Mutant("checker trusts repeated content", "tools/kerb_check/readings.py",
           "            changed = differences(first.content, reading.content, times=True)\n",
           "            changed = []\n", "tools/tests/test_checker.py"),
    # What the whole streets of `make test` must see by themselves.
    Mutant("street: gaps forgotten at a restart", "gateway/kerb_gateway/store/ledger.py",
           "numbered[stream_no].gaps.append(Gap(first_seq, last_seq))",
           "numbered[stream_no].gaps.clear()",
           f"{STREET}::test_gateway_killed_at_twenty_random_moments"),
    Mutant("street: the uplink stays down", "gateway/kerb_gateway/uplink/mqtt.py",
           "        self.connected.clear()\n",
           "        self.connected.clear()\n        self._client.disconnect()\n",
           f"{STREET}::test_broker_killed_and_back"),
    Mutant("street: a row ends when it is sent", "gateway/kerb_gateway/publisher.py",
           "self._flying[self._broker.publish(topic, payload)] = rows",
           "self._broker.publish(topic, payload)\n            self._delivered(rows, 0)",
           f"{STREET}::test_gateway_and_broker_killed_with_messages_in_flight"),
    Mutant("street: a silent lamp is given up at once", "gateway/kerb_gateway/commands.py",
           "if self._clock.boottime_ms() < command.expires_ms + settle_ms:", "if False:",
           f"{STREET}::test_bus_units_that_answer_late_garble_and_die"),
    Mutant("street: silence is not noticed", "gateway/kerb_gateway/links/ble.py",
           "while loop.time() - self._heard_at < self._deaf_after_s:", "while True:",
           f"{STREET}::test_bluetooth_daemon_dies_and_returns"),
    Mutant("street: a forged MIC is taken", "gateway/kerb_gateway/crypto.py",
           _MIC_REFUSED, _MIC_TAKEN,
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: a replay, or the second adapter's duplicate, is stored",
           "gateway/kerb_gateway/ingest.py",
           "        return DUPLICATE if known == digest else TAMPERED\n",
           "        return ACCEPTED if known == digest else TAMPERED\n",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: a jumped counter is believed", "gateway/kerb_gateway/ingest.py",
           "if seq - stream.last_seq > JUMP_LIMIT and not authenticated:", "if False:",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: a command too late is applied", "firmware/kerb_node/lamp.py",
           "return _EXPIRED if life_s == 0 else _APPLIED", "return _APPLIED",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: a repeated command is taken again", "gateway/kerb_gateway/commands.py",
           "        return bool(rows)", "        return False",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: a malformed command gets no result", "gateway/kerb_gateway/commands.py",
           "        except Malformed as error:\n            await self._refuse(node_id, error)\n",
           "        except Malformed:\n",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: SIGTERM leaves a batch in memory", "gateway/kerb_gateway/app.py",
           "            async with asyncio.timeout(_SETTLE_S):\n"
           "                await ingest.commit()\n",
           "            pass\n",
           f"{STREET}::test_sigterm_ends_the_gateway_cleanly"),
    Mutant("street: numbers come back after a power cut", "firmware/kerb_node/sequence.py",
           "            self._store.set_int(_KEY, self.block_end)\n", "", POWER_STREET),
    Mutant("radio off under a live connection", "firmware/kerb_node/links/ble.py",
           "            self._wait_gone()\n", "",
           "firmware/tests/test_bin_life.py"
           "::test_the_link_has_ended_before_the_radio_is_switched_off"),
    Mutant("a brown-out is an ordinary start", "firmware/kerb_node/supervisor.py",
           "return starts > _WEAK_STARTS", "return False",
           "firmware/tests/test_power_and_crash.py"
           "::test_a_cell_that_breaks_down_at_each_start_is_left_to_rest"),
    Mutant("a panic is an ordinary start", "firmware/kerb_node/supervisor.py",
           'if self.cause in ("watchdog", "hard"):', 'if self.cause == "watchdog":',
           "firmware/tests/test_power_and_crash.py"
           "::test_panics_below_the_application_end_in_safe_mode"),
    Mutant("frost lies below the ADC's floor", "firmware/kerb_node/board.py",
           "if reading_uv < _SMALL_UV:", "if False:", f"{HIL_BIN}::test_frost_is_measured"),
]  # fmt: skip


def _copy(target: Path) -> None:
    """Copy what git tracks, and what it does not know yet, into `target`."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=TOP, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        if (TOP / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, target / name)


def _red(tree: Path, mutant: Mutant) -> str:
    """Return "" if the mutant's test fails in the broken tree, else what is wrong."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return f"its text stands {text.count(mutant.old)} times in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new))
    paths = os.pathsep.join(str(tree / name) for name in ("shared", "gateway", "tools"))
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", mutant.test],
            cwd=tree, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
            timeout=_TEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "its test did not end"
    finally:
        path.write_text(text)
    if answer.returncode == 1:
        return ""
    return "its test stays green" if answer.returncode == 0 else answer.stdout[-300:]


def main() -> int:
    """Try every mutant, or those whose name contains an argument."""
    wanted = [m for m in MUTANTS if not sys.argv[1:] or any(a in m.name for a in sys.argv[1:])]
    console = Console(stderr=True)
    survivors = []
    with tempfile.TemporaryDirectory() as scratch, Progress(console=console) as progress:
        tree = Path(scratch)
        _copy(tree)
        task = progress.add_task("mutants", total=len(wanted))
        for mutant in wanted:
            progress.update(task, description=mutant.name)
            why = _red(tree, mutant)
            print(
                f"{'killed  ' if not why else 'SURVIVED'}  {mutant.name}"
                + (f": {why}" if why else "")
            )
            if why:
                survivors.append(mutant.name)
            progress.advance(task)
    print(f"{len(wanted) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
