#!/usr/bin/env python3
"""Breaks each mechanism on purpose and expects its test to fail: a test that cannot fail is none.

Rule: a mutant is one replacement in one file of a copy of the tree; a test that stays green, or a
text that is no longer there, is a failure of this run. docs/testing.md lists the same names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.progress import Progress

TOP = Path(__file__).resolve().parents[1]
_TEST_S = 180
_WORKERS = 2  # most of a street's time is waiting


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
TIMELINE = "gateway/tests/test_timeline.py"
TIMEKEEPER = "gateway/tests/test_timekeeper.py"

PUBLISHER = "gateway/tests/test_publisher.py"
LETTERS = "gateway/tests/test_letters.py"
CONTROL = "gateway/tests/test_control.py"
TAILS = "gateway/tests/test_tails.py"
GUARD = "gateway/tests/test_guard.py"
REPLAY = "gateway/tests/test_replay.py"
TRAPS_PAHO = "gateway/tests/test_traps_paho.py"
REGRESSIONS = "shared/tests/test_regressions.py"
LEASES = "gateway/tests/test_leases.py"
FUZZED = "tools/tests/test_fuzz.py::test_a_little_of_every_target"
NO_RENEWAL = "test_an_owner_that_cannot_renew_stops_by_its_own_clock"
NEVER_TWO = "test_never_two_owners_and_soon_one_again"
PROGRESS = "gateway/tests/test_progress.py"
GROUP = "gateway/tests/test_group.py"
GROUP_STREET = "tools/tests/test_group_street.py"
KILLED = "test_the_owner_is_killed_with_readings_that_it_never_delivered"
CUTS = "tools/tests/test_fault_states.py"
NODES_MQTT = "gateway/tests/test_nodes_mqtt.py"
BACKUP = "gateway/tests/test_backup.py"
RESTORE = "gateway/tests/test_restore.py"
BOUND = "gateway/tests/test_letters_bound.py"
RESTORE_STREET = "tools/tests/test_restore_street.py"
MIC_REFUSED = 'raise RemoteFault(MIC, "the message integrity code does not match") from None'
MIC_TAKEN = (
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
           "self._refused.append((row, reason))", "self._outbox.ended(row.outbox_no)",
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
           MIC_REFUSED, MIC_TAKEN, INGEST),
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
    Mutant("a distance between two groups of echoes", "firmware/kerb_node/fill/estimate.py",
           "    return sorted(values)[(len(values) - 1) // 2]\n",
           "    ordered, half = sorted(values), len(values) // 2\n"
           "    return (ordered[half] + ordered[(len(values) - 1) // 2]) / 2\n",
           "firmware/tests/test_pure_node.py"),
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
           "        elif len(rows) > 1:\n            self._alone",
           "        elif False:\n            self._alone",
           "gateway/tests/test_publisher.py"
           "::test_a_backlog_travels_together_and_a_refused_batch_alone"),
    Mutant("what is in flight grows with its messages", "gateway/kerb_gateway/publisher.py",
           "self._flying_bytes >= _FLYING_BYTES", "False",
           f"{PUBLISHER}::test_what_is_in_flight_is_bounded_in_bytes_too"),
    Mutant("a refusal of the moment is answered at once",
           "gateway/kerb_gateway/uplink/refusals.py",
           "now_s + self._patience.pause_s(self._refusals)", "now_s",
           f"{PUBLISHER}::test_a_refusal_of_the_moment_is_borne_with_pauses_and_an_end"),
    Mutant("a refusal of the moment has no end", "gateway/kerb_gateway/publisher.py",
           "if tries >= self._patience.tries:", "if False:",
           f"{PUBLISHER}::test_a_refusal_of_the_moment_is_borne_with_pauses_and_an_end"),
    Mutant("a replayed letter stays a dead letter", "gateway/kerb_gateway/store/ledger.py",
           '        self.add(("delete from dead_letters where outbox_no = ?", [outbox_no]))\n', "",
           f"{LETTERS}::test_killed_at_every_statement_each_letter_is_in_one_place"),
    Mutant("a dropped letter leaves no row", "gateway/kerb_gateway/store/letters.py",
           "        self._end(letter, DROPPED, who, why, None)\n", "",
           f"{LETTERS}::test_killed_at_every_statement_each_letter_is_in_one_place"),
    Mutant("two processes write", "gateway/kerb_gateway/store/claim.py",
           "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass",
           f"{CONTROL}::test_two_processes_never_write_and_a_killed_one_lets_go"),
    Mutant("anybody may use the control socket", "gateway/kerb_gateway/service/control.py",
           "_MODE = 0o600", "_MODE = 0o666",
           f"{CONTROL}::test_only_its_owner_may_connect_and_an_old_file_is_replaced"),
    Mutant("an impatient client stops a request", "gateway/kerb_gateway/service/control.py",
           "asyncio.shield(work)", "work",
           f"{CONTROL}::test_a_request_begun_is_finished_though_its_client_has_gone"),
    Mutant("silence is not said upstream", "gateway/kerb_gateway/tails.py",
           ">= self._limit_of(s.node)]", "> 1e12]",
           f"{TAILS}::test_silence_is_said_once_and_a_new_number_ends_it"),
    Mutant("a tail stands for ever", "gateway/kerb_gateway/ingest.py",
           "            self._ledger.close_tail(stream)\n", "            pass\n",
           f"{TAILS}::test_silence_is_said_once_and_a_new_number_ends_it"),
    Mutant("a recording keeps a dead node alive", "gateway/kerb_gateway/ingest.py",
           "            self._ledger.count(DUPLICATE, stream.node.node_no)\n",
           "            self._contact(stream, heard.boottime_ms)\n",
           f"{TAILS}::test_silence_is_said_once_and_a_new_number_ends_it"),
    Mutant("a restart forgets a silence", "gateway/kerb_gateway/tails.py",
           "(now_ms - self._began_ms) / 1000 + self._before_s.get(stream.stream_no, 0.0)",
           "(now_ms - self._began_ms) / 1000",
           f"{TAILS}::test_silence_outlives_restarts_and_so_does_a_tail"),
    Mutant("wrong MICs are not rationed", "gateway/kerb_gateway/guard.py",
           "return now_ms - window.begun_ms < self._window_ms", "return False",
           f"{GUARD}::test_a_flood_takes_no_reading_from_the_node_it_imitates"),
    Mutant("a flood silences its node", "gateway/kerb_gateway/ingest.py",
           "if self._guard.asks(heard.address, heard.boottime_ms):", "if False:",
           f"{GUARD}::test_a_flood_takes_no_reading_from_the_node_it_imitates"),
    Mutant("any session grants more wrong MICs", "gateway/kerb_gateway/ingest.py",
           "            self.suspect.discard(node.node_id)\n",
           "            self.suspect.discard(node.node_id)\n"
           "            self._guard.forgive(_address_text(node))\n",
           f"{GUARD}::test_a_node_with_a_new_epoch_is_forgiven_its_wrong_mics"),
    Mutant("replayed rows look like new ones", "gateway/kerb_gateway/uplink/payloads/native.py",
           'payload, {"replayed": True}', "payload, {}",
           f"{REPLAY}::test_rows_come_once_more_in_order_and_the_live_flow_goes_on"),
    Mutant("a message does not say its place in the outbox",
           "gateway/kerb_gateway/store/outbox.py",
           "payload = self._payloads.numbered(payload, outbox_no)", "pass",
           f"{REPLAY}::test_rows_come_once_more_in_order_and_the_live_flow_goes_on"),
    Mutant("a replay takes what dead letters hold", "gateway/kerb_gateway/replay.py",
           "[row for row in rows if row.outbox_no not in letters]", "rows",
           f"{REPLAY}::test_letters_are_not_replayed_and_refusals_are_counted"),
    Mutant("a replay takes more than the broker's room", "gateway/kerb_gateway/publisher.py",
           "self._broker.receive_maximum - self.lent", "self._broker.receive_maximum",
           f"{PUBLISHER}::test_room_that_a_replay_uses_is_not_used_twice"),
    Mutant("a replay is confirmed before it is stored", "gateway/kerb_gateway/replay.py",
           "            await self._accept(message)\n            ack(message)\n",
           "            ack(message)\n            await self._accept(message)\n",
           f"{REPLAY}::test_a_request_is_acknowledged_when_it_is_stored"),
    Mutant("checker believes a tail that stands", "tools/kerb_check/takenback.py",
           "        *_not_closed(delivered, unique),\n", "", "tools/tests/test_checker.py"),
    Mutant("checker hides numbers behind a closed tail", "tools/kerb_check/takenback.py",
           "        if not loss.id or not (loss.id in gone or _is_over(loss, delivered))\n", "",
           "tools/tests/test_checker.py"),
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
           "    changed = differences(before.content, reading.content, times=times)\n",
           "    changed = []\n", "tools/tests/test_checker.py"),
    Mutant("checker trusts the clock of a slow machine", "tools/kerb_check/alignment.py",
           "    if burst.counter is not None:\n", "    if False:\n",
           "tools/tests/test_checker.py"),
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
           MIC_REFUSED, MIC_TAKEN,
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
           "                await core.ingest.commit()\n",
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
    Mutant("files of an older tree stay", "tools/kerb_tools/flash.py",
           "elif path not in wanted:", "elif False:",
           "tools/tests/test_board_console.py::test_an_old_tree_is_replaced_and_the_log_stays"),
    Mutant("a soft reset ends the watchdog", "tools/kerb_sim/board/virtual.py",
           'await self._stop("off", watched=True)', 'await self._stop("off")',
           "tools/tests/test_board_console.py::test_ctrl_c_leaves_a_watchdog_behind"),
    Mutant("HIL erases a board in use", "hil_tests/serial_bench.py",
           "if site != _SITE:", "if False:",
           "tools/tests/test_serial_bench.py::test_a_board_in_use_is_left_alone"),
    Mutant("the newest number at a contact was made after it", "gateway/kerb_gateway/timeline.py",
           "            if stamp.seq > contact.last_seq:",
           "            if stamp.seq >= contact.last_seq:", TIMELINE),
    Mutant("whole seconds are taken for exact", "gateway/kerb_gateway/timeline.py",
           "self._least(passed_ms - 1000)", "self._least(passed_ms)", TIMELINE),
    Mutant("drift is added on the wrong side", "gateway/kerb_gateway/timeline.py",
           "1 + self._drift if node_ms >= 0 else 1 - self._drift",
           "1 - self._drift if node_ms >= 0 else 1 + self._drift", TIMELINE),
    Mutant("uptimes of two boots are compared", "gateway/kerb_gateway/timeline.py",
           "same = [one for one in contacts if one.node_boot_no == stamp.node_boot_no]",
           "same = list(contacts)", TIMELINE),
    Mutant("a repetition is taken for fresh", "gateway/kerb_gateway/timeline.py",
           "        if not repeated:", "        if True:", TIMELINE),
    Mutant("a clock that was set by hand counts as NTP", "gateway/kerb_gateway/clock.py",
           "0 <= state < _TIME_ERROR and", "0 <= state and", TIMELINE),
    Mutant("an anchor is as sure days away", "gateway/kerb_gateway/anchor.py",
           "anchor.uncertainty_ms + drifted_ms(boottime_ms - anchor.boottime_ms)",
           "anchor.uncertainty_ms", TIMELINE),
    Mutant("clock anchor of the wrong boot", "gateway/kerb_gateway/store/clock_anchors.py",
           "Offset(*offset_at(boot.anchors, boottime_ms))",
           "Offset(*offset_at(self.boots[-1].anchors or boot.anchors, boottime_ms))", TIMELINE),
    Mutant("an anchor changes nothing that was mapped",
           "gateway/kerb_gateway/store/clock_anchors.py",
           "        self._starts.clear()\n        self._mapped.clear()\n        operations",
           "        self._starts.clear()\n        operations", TIMELINE),
    Mutant("an anchor changes nothing of where its boot began",
           "gateway/kerb_gateway/store/clock_anchors.py",
           "        self._starts.clear()\n        self._mapped.clear()\n        operations",
           "        self._mapped.clear()\n        operations", TIMELINE),
    Mutant("anchors are forgotten at a restart", "gateway/kerb_gateway/store/clock_anchors.py",
           "by_no[boot_no].anchors.append(Anchor(*numbers))", "pass", TIMEKEEPER),
    Mutant("what waited in front of the process is fresh", "gateway/kerb_gateway/timekeeper.py",
           "        if heard_ms < self._held_up_until_ms:", "        if False:", TIMEKEEPER),
    Mutant("a session is no contact", "gateway/kerb_gateway/backfill.py",
           "        self._ingest.time.contact(readings, clock, asked_ms, answered_ms)\n", "",
           TIMEKEEPER),
    Mutant("contacts are lost at a clean end", "gateway/kerb_gateway/store/contacts.py",
           "not (at_once or since_ms >= STORE_EVERY_MS)", "not since_ms >= STORE_EVERY_MS",
           TIMEKEEPER),
    Mutant("checker trusts the stated times", "tools/kerb_check/times.py",
           "    if before or after:", "    if before and after:", "tools/tests/test_checker.py"),
    Mutant("street: a polled status is no contact", "gateway/kerb_gateway/links/modbus.py",
           "        self._ingest.time.contact(stream, clock, asked_ms, answered_ms)\n", "",
           f"{STREET}::test_each_message_says_when_it_was_made"),
    Mutant("street: messages know no anchors", "gateway/kerb_gateway/assembly.py",
           "        payloads.offsets = ledger.anchors\n", "",
           f"{STREET}::test_each_message_says_when_it_was_made"),
    Mutant("trap: an answer of another function is taken", "gateway/kerb_gateway/links/modbus.py",
           "if not isinstance(answer, _ANSWERS[method]):", "if False:",
           "gateway/tests/test_traps_pymodbus.py"),
    Mutant("trap: one message more than the broker takes", "gateway/kerb_gateway/uplink/mqtt.py",
           'b"online", qos=0', 'b"online", qos=1',
           f"{TRAPS_PAHO}::test_ours_does_though_no_puback_comes"),
    Mutant("trap: work in paho's thread", "gateway/kerb_gateway/uplink/mqtt.py",
           "self._hand_over(self._take_acks)", "self._take_acks()",
           f"{TRAPS_PAHO}::test_what_the_broker_says_is_dealt_with_in_the_event_loop"),
    Mutant("trap: two gateways write one database", "gateway/kerb_gateway/store/claim.py",
           "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB",
           "gateway/tests/test_traps_sqlite.py::test_only_one_at_a_time_holds_the_lock"),
    Mutant("trap: a pinned log is not said", "gateway/kerb_gateway/store/retention.py",
           "if pinned and not self._pinned:", "if False:", "gateway/tests/test_traps_sqlite.py"),
    Mutant("fuzz: a lost range hides numbers", "gateway/kerb_gateway/ingest.py",
           "stream.gaps.append(Gap(stream.last_seq + 1, row.last_seq))",
           "stream.gaps.append(Gap(max(stream.last_seq + 1, row.seq), row.last_seq))",
           REGRESSIONS),
    Mutant("fuzz: half a surrogate is stored", "gateway/kerb_gateway/commands.py",
           "or not _is_text(command_id)", "or False", REGRESSIONS),
    Mutant("fuzz: an unknown outcome is looked up", "gateway/kerb_gateway/commands.py",
           'if status["command_outcome"] >= len(OUTCOMES):', "if False:", REGRESSIONS),
    Mutant("fuzz: a stranger chooses a topic", "gateway/kerb_gateway/uplink/topics.py",
           "return segment if _SEGMENT.match(segment) else UNKNOWN", "return segment",
           REGRESSIONS),
    Mutant("fuzz: overlong UTF-8 is text", "shared/kerb_wire/provisioning.py",
           "if 0xC2 <= first <= 0xDF:", "if 0xC0 <= first <= 0xDF:", REGRESSIONS),
    Mutant("fuzz: interpreters that disagree", "tools/kerb_tools/fuzz/differential.py",
           "if said != mine:", "if False:",
           "tools/tests/test_fuzz.py::test_interpreters_that_disagree_or_die_are_found"),
    Mutant("fuzz: who never reads holds a place", "gateway/kerb_gateway/service/control.py",
           "async with asyncio.timeout(self._request_s):\n            await writer.drain()",
           "async with asyncio.timeout(None):\n            await writer.drain()",
           f"{FUZZED}[control]"),
    Mutant("fuzz: a refused replay is written", "gateway/kerb_gateway/desk.py",
           "if why is not None:\n",
           'await self._replays.accept(f"x{request.first}", 1, 2)\n        if why is not None:\n',
           f"{FUZZED}[control]"),
    Mutant("fuzz: a session's message counts twice", "shared/kerb_wire/session.py",
           "if number <= self._seen:", "if number < self._seen:", f"{FUZZED}[node_session]"),
    Mutant("fuzz: a lamp acts on a wrong CRC", "firmware/kerb_node/modbus.py",
           "        if not _crc_fits(adu):\n            self", "        if 0:\n            self",
           f"{FUZZED}[node_bus]"),
    Mutant("faults: processes outlive their campaign", "tools/kerb_tools/faults/tether.py",
           "            _kill(pid)", "            return os._exit(1)",
           "tools/tests/test_fault_streets.py::test_no_process_outlives_the_campaign"),
    Mutant("faults: orphans are init's", "tools/kerb_tools/faults/tether.py",
           "if libc.prctl(_SUBREAPER, 1, 0, 0, 0):", "if 0:",
           "tools/tests/test_fault_streets.py::test_an_orphan_of_a_job_ends_too"),
    Mutant("trap: all is sent again to who takes less", "gateway/kerb_gateway/uplink/mqtt.py",
           "        _hold_back(client, limits[0])\n", "",
           f"{TRAPS_PAHO}::test_ours_sends_again_only_what_the_broker_takes_now"),
    Mutant("an old null stays a null", "gateway/kerb_gateway/commands.py",
           "_FADE_DEFAULT_MS if row[4] is None else row[4]", "row[4]",
           f"{COMMANDS}::test_a_fade_that_an_old_release_stored_as_null_is_the_usual_one"),
    Mutant("an unowned command outlives itself", "gateway/kerb_gateway/groupcommands.py",
           "mine.append((message, now_ms >= until_ms))", "mine.append((message, False))",
           "gateway/tests/test_group.py"),
    Mutant("an old epoch is not spoken of", "gateway/kerb_gateway/group.py",
           "for one in older),", "for one in older[:0]),",
           "gateway/tests/test_group.py"
           "::test_an_old_epoch_that_is_delivered_late_is_closed_at_the_others_too"),
    Mutant("a forgery ends the calls in service", "gateway/kerb_gateway/backfill.py",
           "proven = attempts.proven\n", "proven = attempts.outcome\n",
           "gateway/tests/test_backfill.py"
           "::test_a_forgery_does_not_end_the_calls_on_a_node_in_service"),
    Mutant("a byte that is no UTF-8 stops a node", "firmware/kerb_node/config.py",
           'open(path, "rb")', "open(path)", "firmware/tests/test_pure_node.py"),
    Mutant("lease without an end", "gateway/kerb_gateway/leases.py",
           "return now_ms < state.claim.since_ms + self._lease_ms and not state.taken(now_ms)",
           "return not state.taken(now_ms)", f"{LEASES}::{NO_RENEWAL}"),
    Mutant("others wait shorter than a lease", "gateway/kerb_gateway/leases.py",
           "_WAIT_PCT = 105", "_WAIT_PCT = 80", f"{LEASES}::{NEVER_TWO}"),
    Mutant("owner before its claim came back", "gateway/kerb_gateway/leases.py",
           "state.claim = _Claim(state.generation, now_ms)",
           "state.claim = _Claim(state.generation, now_ms, True)", f"{LEASES}::{NEVER_TWO}"),
    Mutant("a late renewal is not waited for", "gateway/kerb_gateway/leases.py",
           " and not state.taken(now_ms)\n\n", "\n\n", LEASES),
    Mutant("stale generation accepted", "gateway/kerb_gateway/leases.py",
           "claim.confirmed and generation <= claim.generation:",
           "claim.confirmed and generation < 0:", LEASES),
    Mutant("generation forgotten", "gateway/kerb_gateway/store/leases.py",
           "max(generation, excluded.generation)", "generation",
           f"{GROUP}::test_one_owner_a_takeover_and_a_return"),
    Mutant("who is not the owner connects", "gateway/kerb_gateway/backfill.py",
           "        if not self._owned(node.node_id):\n            return False",
           "        if False:\n            return False",
           f"{GROUP}::test_only_the_owner_connects"),
    Mutant("acknowledged is taken for delivered", "gateway/kerb_gateway/progress.py",
           "if outbox_done < self._pending_no:", "if False:", PROGRESS),
    Mutant("a refused row counts before its loss record", "gateway/kerb_gateway/progress.py",
           "if outbox_last > self._pending_no and not self._passed:", "if False:", PROGRESS),
    Mutant("a told epoch is believed without a MIC", "gateway/kerb_gateway/ingest.py",
           "        except RemoteFault:\n            return None\n        self.suspect.discard",
           "        except RemoteFault:\n            self.elsewhere.begin(node, candidate.epoch)\n"
           "            return None\n        self.suspect.discard", PROGRESS),
    Mutant("a command of another gateway is answered", "gateway/kerb_gateway/groupcommands.py",
           "return place != ELSEWHERE", "return True", GROUP),
    Mutant("checker forgives a living gateway", "tools/kerb_check/readings.py",
           "if arrived is None and (gone or", "if arrived is None and (True or",
           "tools/tests/test_checker_group.py"),
    Mutant("street: a dead owner keeps its nodes", "gateway/kerb_gateway/leases.py",
           "any(now_ms < other.until_ms for other in self.others.values())",
           "bool(self.others)", f"{GROUP_STREET}::{KILLED}"),
    # What power cuts of the store must see.
    Mutant("cuts: commits are not synced", "gateway/kerb_gateway/store/database.py",
           '"pragma synchronous = full"', '"pragma synchronous = normal"',
           f"{CUTS}::test_a_part_of_the_power_cut_states_holds"),
    Mutant("cuts: what a killed gateway left is believed unsynced",
           "gateway/kerb_gateway/store/database.py",
           "            _sync_what_was_found(connection)\n", "",
           f"{CUTS}::test_killed_before_the_sync_and_then_the_power_goes"),
    Mutant("cuts: readings and outbox rows in two transactions",
           "gateway/kerb_gateway/store/ledger.py",
           "            await self._store.write(operations)\n",
           "            later = [o for o in operations if 'outbox (' in str(o)]\n"
           "            await self._store.write([o for o in operations if o not in later])\n"
           "            await self._store.write(later)\n",
           f"{CUTS}::test_a_part_of_the_power_cut_states_holds"),
    Mutant("faults: a failed sync is survived", "gateway/kerb_gateway/store/database.py",
           "if code == sqlite3.SQLITE_FULL:", "if code in (sqlite3.SQLITE_FULL, 10):",
           "tools/tests/test_fault_streets.py::test_a_part_of_kills_disturbances_and_flash_cuts"),
    Mutant("faults: a number is used before it is reserved", "firmware/kerb_node/sequence.py",
           "            self._store.set_int(_KEY, self.block_end)\n", "",
           "tools/tests/test_fault_streets.py::test_a_part_of_kills_disturbances_and_flash_cuts"),
    Mutant("faults: a repetition counts as recovery", "tools/kerb_tools/faults/recovery.py",
           "if reading.identity not in seen:", "if True:",
           "tools/tests/test_fault_streets.py"
           "::test_recovery_counts_from_the_fault_to_the_next_new_reading"),
    Mutant("what is new overtakes what is sent again", "gateway/kerb_gateway/uplink/mqtt.py",
           "        self.on_connection(True, kept)\n",
           "        self.on_connection(True, kept)\n        self.connected.set()\n",
           "gateway/tests/test_uplink_order.py"),
    Mutant("what is about to be sent is superseded", "gateway/kerb_gateway/commands.py",
           "one.node is node and not one.sent]", "one.node is node]",
           f"{COMMANDS}::test_what_is_about_to_be_sent_is_not_superseded"),
    Mutant("a cancel is forgotten", "gateway/kerb_gateway/publisher.py",
           "            async with asyncio.timeout(_PAUSE_S):\n"
           "                await event.wait()\n",
           "            await asyncio.wait_for(event.wait(), _PAUSE_S)\n",
           "gateway/tests/test_publisher.py::test_a_stop_that_meets_a_commit_is_not_forgotten"),
    Mutant("an ended epoch is forgotten", "gateway/kerb_gateway/backfill.py",
           "for ended in self._ingest.ended(readings):", "for ended in []:",
           "gateway/tests/test_backfill.py"
           "::test_gaps_of_an_epoch_that_has_ended_are_fetched_too"),
    Mutant("a forger closes a node's door", "gateway/kerb_gateway/backfill.py",
           "if attempts.blind and outcome.reading is not None:", "if False:",
           "gateway/tests/test_backfill.py"
           "::test_what_a_forger_made_fail_does_not_hold_up_a_true_advert"),
    Mutant("backup from a connection of its own", "gateway/kerb_gateway/store/database.py",
           "            self._copier, backup.take, source, self._path, file, progress, "
           "lambda: self._closing\n",
           "            self._copier, backup.take,\n"
           "            sqlite3.connect(self._path, check_same_thread=False),\n"
           "            self._path, file, progress,\n",
           f"{BACKUP}::test_writes_meanwhile_neither_restart_it_nor_swell_the_log"),
    Mutant("a backup has its name from the start", "gateway/kerb_gateway/store/backup.py",
           'return file.with_name(file.name + ".partial")',
           'return file.with_name(file.name + "")',
           f"{BACKUP}::test_a_killed_one_looks_like_none_and_the_next_one_succeeds"),
    Mutant("backup readable by all", "gateway/kerb_gateway/store/backup.py",
           "os.O_EXCL | os.O_CLOEXEC, 0o600))", "os.O_EXCL | os.O_CLOEXEC, 0o644))",
           f"{BACKUP}::test_the_running_gateway_makes_a_backup"),
    Mutant("backup written over what is there", "gateway/kerb_gateway/store/backup.py",
           "    if file.exists() or file.is_symlink():\n", "    if False:\n",
           f"{BACKUP}::test_what_must_not_be_written_is_refused"),
    Mutant("restored counters are believed", "gateway/kerb_gateway/ingest.py",
           "    if stream.held and not authenticated:\n", "    if False:\n",
           f"{RESTORE_STREET}::test_a_restored_gateway_believes_no_recording_and_misses_nothing"),
    Mutant("restored counters are in doubt until a restart only",
           "gateway/kerb_gateway/store/ledger.py",
           "                numbered[stream_no].held = True\n", "                pass\n",
           f"{RESTORE}::test_recordings_are_not_believed_until_the_node_has_said_its_number"),
    Mutant("a restore keeps the gw_epoch", "gateway/kerb_gateway/store/restore.py",
           "    execute(\"insert or replace into meta values ('gw_epoch', ?)\", [fresh])\n", "",
           f"{RESTORE}::test_the_numbers_belong_to_a_new_epoch_and_upstream_is_told"),
    Mutant("restored commands have a life left", "gateway/kerb_gateway/store/restore.py",
           "set state = 'sent', boot_id = ? where state", "set boot_id = boot_id || ? where state",
           f"{COMMANDS}::test_what_was_open_in_a_restored_backup_is_settled_and_never_applied"),
    Mutant("a restore forgets commands", "gateway/kerb_gateway/store/restore.py",
           'present.get("commands", [])', "[]",
           f"{COMMANDS}::test_a_restore_forgets_no_command_of_the_database_that_goes"),
    Mutant("command numbers return with a restore", "gateway/kerb_gateway/commands.py",
           "            self._next_no = max(self._next_no, int(floor[0][0]) + 1)\n",
           "            pass\n",
           f"{COMMANDS}::test_what_was_open_in_a_restored_backup_is_settled_and_never_applied"),
    Mutant("the old log stays beside the restored file", "gateway/kerb_gateway/store/install.py",
           "            if source.exists():\n                os.rename",
           '            if part == "":\n                os.rename',
           f"{RESTORE}::test_killed_at_every_step_the_old_or_the_new_one_is_there"),
    Mutant("a restore that counts is not finished", "gateway/kerb_gateway/store/database.py",
           "        install.finish(self._path)\n", "",
           f"{RESTORE}::test_killed_at_every_step_the_old_or_the_new_one_is_there"),
    Mutant("a damaged backup is installed", "gateway/kerb_gateway/store/restore.py",
           "    why = backup.unsound(staged)\n", "    why = None\n",
           f"{RESTORE}::test_a_damaged_or_foreign_file_is_refused"),
    Mutant("a letter's loss is taken back under the wrong gw_epoch",
           "gateway/kerb_gateway/store/letters.py",
           "said_with = gw_epoch_in(letter.payload)", "said_with = None",
           f"{RESTORE}::test_a_letter_takes_back_the_loss_that_was_said_before_the_restore"),
    Mutant("the broker's own word on generations is not heard",
           "gateway/kerb_gateway/leases.py",
           "                self.seen(node, number)\n", "                pass\n",
           f"{RESTORE}::test_a_generation_does_not_fall_behind_the_brokers"),
    Mutant("dead letters go without a word", "gateway/kerb_gateway/store/letters.py",
           "            if says_dropped(letter):\n", "            if True:\n",
           f"{BOUND}::test_the_oldest_beyond_the_number_go_and_upstream_is_told"),
    Mutant("a dropped letter is forgotten with its row", "gateway/kerb_gateway/store/letters.py",
           "        if gone:\n", "        if False:\n",
           f"{BOUND}::test_the_oldest_beyond_the_number_go_and_upstream_is_told"),
    Mutant("undelivered readings go before dead letters",
           "gateway/kerb_gateway/store/retention.py",
           "            if undelivered and await", "            if not hours and await",
           f"{BOUND}::test_they_go_for_want_of_room_before_what_was_not_delivered"),
]  # fmt: skip


def copy_tree(target: Path) -> None:
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


def _try_all(wanted: list[Mutant], done: Callable[[Mutant, str], None]) -> None:
    """Try each mutant, _WORKERS at a time, every worker in a tree of its own."""
    trees: SimpleQueue[Path] = SimpleQueue()

    def attempt(mutant: Mutant) -> None:
        tree = trees.get()
        try:
            done(mutant, _red(tree, mutant))
        finally:
            trees.put(tree)

    with contextlib.ExitStack() as scratch, ThreadPoolExecutor(_WORKERS) as pool:
        for _ in range(_WORKERS):
            tree = Path(scratch.enter_context(tempfile.TemporaryDirectory()))
            copy_tree(tree)
            trees.put(tree)
        list(pool.map(attempt, wanted))


def main() -> int:
    """Try every mutant, or those whose name contains an argument."""
    wanted = [m for m in MUTANTS if not sys.argv[1:] or any(a in m.name for a in sys.argv[1:])]
    survivors = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("mutants", total=len(wanted))

        def done(mutant: Mutant, why: str) -> None:
            verdict = "SURVIVED" if why else "killed  "
            print(f"{verdict}  {mutant.name}" + (f": {why}" if why else ""), flush=True)
            if why:
                survivors.append(mutant.name)
            progress.advance(task)

        _try_all(wanted, done)
    print(f"{len(wanted) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
