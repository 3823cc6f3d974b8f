"""What is broken between gateway and nodes: links, backfill, the guard of MICs."""

from __future__ import annotations

from mutant_tables.mutant import Mutant
from mutant_tables.places import GROUP, GUARD, NODES_MQTT, STREET, TIMEKEEPER

TAIL = "test_a_node_that_sends_is_not_silent_and_a_recording_is_no_contact"

# fmt: off
MUTANTS = [
    Mutant("a stranger's connection stays", "gateway/kerb_gateway/links/ble.py",
           "        try:\n            yield await self._opened(client)\n",
           "        stream = await self._opened(client)\n        try:\n            yield stream\n",
           "tools/tests/test_ble_link.py::test_a_peer_that_is_no_node_of_ours_leaves_no_connection_behind"),
    Mutant("who has lost a node calls it once more", "gateway/kerb_gateway/backfill.py",
           "if not self._owned(node.node_id) or (", "if (",
           f"{GROUP}::test_who_loses_a_node_between_two_tries_calls_it_no_more"),
    Mutant("ack before commit", "gateway/kerb_gateway/backfill.py",
           "        await self._ingest.commit()\n        await self._acknowledge",
           "        await self._acknowledge",
           "gateway/tests/test_backfill.py::test_gaps_are_fetched_and_acked_after_the_commit"),
    Mutant(
        "late answer taken for the next",
        "gateway/kerb_gateway/links/modbus.py",
        "if answer.registers[0] != token:",
        "if False:",
        "gateway/tests/test_modbus_link.py",
    ),
    Mutant("a message ends before its commit", "gateway/kerb_gateway/links/nodes_mqtt.py",
           "self._waiting[0].durable_at <= commits", "self._waiting[0].durable_at <= commits + 1",
           f"{NODES_MQTT}::test_a_bundle_is_answered_after_its_commit_and_not_before"),
    Mutant("a retained message is a reading", "gateway/kerb_gateway/links/nodes_mqtt.py",
           "if message.retained:", "if False:",
           f"{NODES_MQTT}::test_a_retained_message_is_no_reading"),
    Mutant("the window is not kept", "gateway/kerb_gateway/links/mqtt.py",
           "if self._unacked >= self._part.window:", "if False:",
           f"{NODES_MQTT}::test_the_window_bounds_what_waits_and_a_full_one_commits"),
    Mutant("a Wi-Fi node that sends falls silent", "gateway/kerb_gateway/links/nodes_mqtt.py",
           ", contact=True)", ")",
           f"{NODES_MQTT}::{TAIL}"),
    Mutant("a recorded bundle takes a tail back", "gateway/kerb_gateway/links/nodes_mqtt.py",
           "epoch, 0, contact=False)", "epoch, 0)", f"{NODES_MQTT}::{TAIL}"),
    Mutant("wrong MICs are not rationed", "gateway/kerb_gateway/guard.py",
           "return now_ms - window.begun_ms < self._window_ms", "return False",
           f"{GUARD}::test_a_flood_takes_no_reading_from_the_node_it_imitates"),
    Mutant("one try a door", "gateway/kerb_gateway/backfill.py",
           "_DOOR_TRIES = 3", "_DOOR_TRIES = 1",
           "gateway/tests/test_backfill.py::test_what_fails_is_tried_again_while_the_door_is_open"),
    Mutant("service mode waits for another advert", "gateway/kerb_gateway/backfill.py",
           "if not self._in_service(attempts):", "if True:",
           "gateway/tests/test_backfill.py"
           "::test_a_node_in_service_is_called_on_without_a_second_advert"),
    Mutant("any kernel may scan passively", "gateway/kerb_gateway/links/ble.py",
           "if not hears_repeats_passively(self._kernel):", "if False:",
           "tools/tests/test_ble_link.py::test_the_link_scans_passively_where_that_hears_repeats"),
    Mutant("silence is not noticed", "gateway/kerb_gateway/links/ble.py",
           "while loop.time() - self._heard_at < self._deaf_after_s:", "while True:",
           "tools/tests/test_ble_link.py::test_the_link_survives_the_death_of_bluetoothd"),
    Mutant("street: silence is not noticed", "gateway/kerb_gateway/links/ble.py",
           "while loop.time() - self._heard_at < self._deaf_after_s:", "while True:",
           f"{STREET}::test_bluetooth_daemon_dies_and_returns"),
    Mutant("a session is no contact", "gateway/kerb_gateway/backfill.py",
           "        self._ingest.time.contact(readings, clock, asked_ms, answered_ms)\n", "",
           TIMEKEEPER),
    Mutant("street: a polled status is no contact", "gateway/kerb_gateway/links/modbus.py",
           "        self._ingest.time.contact(stream, clock, asked_ms, answered_ms)\n", "",
           f"{STREET}::test_each_message_says_when_it_was_made"),
    Mutant("trap: an answer of another function is taken", "gateway/kerb_gateway/links/modbus.py",
           "if not isinstance(answer, _ANSWERS[method]):", "if False:",
           "gateway/tests/test_traps_pymodbus.py"),
    Mutant("a forgery ends the calls in service", "gateway/kerb_gateway/backfill.py",
           "proven = attempts.proven\n", "proven = attempts.outcome\n",
           "gateway/tests/test_backfill.py"
           "::test_a_forgery_does_not_end_the_calls_on_a_node_in_service"),
    Mutant("who is not the owner connects", "gateway/kerb_gateway/backfill.py",
           "        if not self._owned(node.node_id):\n            return False",
           "        if False:\n            return False",
           f"{GROUP}::test_only_the_owner_connects"),
    Mutant("an ended epoch is forgotten", "gateway/kerb_gateway/backfill.py",
           "for ended in self._ingest.ended(readings):", "for ended in []:",
           "gateway/tests/test_backfill.py"
           "::test_gaps_of_an_epoch_that_has_ended_are_fetched_too"),
    Mutant("a forger closes a node's door", "gateway/kerb_gateway/backfill.py",
           "if attempts.blind and outcome.reading is not None:", "if False:",
           "gateway/tests/test_backfill.py"
           "::test_what_a_forger_made_fail_does_not_hold_up_a_true_advert"),
]
