"""What goes upstream says the same as what is stored, in words that need no table."""

from __future__ import annotations

import json

from kerb_gateway.model import Origin, Reading
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_wire.words import FAULT_CYCLING, FAULT_LAMP_FAILURE
from parts import EPOCH, LAMP_ID, TOPICS

ARRIVAL = ("b", 1, None, "none")
MADE = (None, None, None, 1)


def test_a_lamps_faults_are_a_number_and_words() -> None:
    payloads = NativePayloads(TOPICS, "g")
    for faults, names in (
        (0, []),
        (FAULT_LAMP_FAILURE | FAULT_CYCLING, ["lamp_failure", "cycling"]),
    ):
        reading = Reading(1, 1, 3, "lamp", *ARRIVAL, *MADE, event="fault", faults=faults)
        topic, payload = payloads.reading(Origin(LAMP_ID, EPOCH), reading, 9)
        message = json.loads(payload)
        assert topic == TOPICS.of(LAMP_ID, "reading")
        assert (message["faults"], message["fault_names"]) == (faults, names)
