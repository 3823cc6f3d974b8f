"""The log's form: one line an event, and every event that wants a person's eye is a warning."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from kerb_gateway import logs

TOP = Path(__file__).resolve().parents[2]
_SPEAK = """
import logging
from kerb_gateway.logs import setup
logger = setup("info", "json")
logger.info("started", nodes=3)
logging.getLogger("bleak").warning("a library says\\n two lines")
logging.getLogger("pymodbus.logging").error("a dump of the bus")
logging.getLogger("paho").info("chatter")
"""


def test_libraries_speak_in_our_form_or_not_at_all() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", _SPEAK], capture_output=True, text=True, check=True, timeout=30
    )
    rows = [json.loads(line) for line in answer.stderr.splitlines()]
    assert [(row["event"], row["level"]) for row in rows] == [
        ("started", "info"),
        ("a library says\n two lines", "warning"),
    ]
    assert rows[1]["logger"] == "bleak"


def test_every_warning_is_an_event_that_the_gateway_logs() -> None:
    package = TOP / "gateway" / "kerb_gateway"
    sources = [one for one in package.rglob("*.py") if one.name != "logs.py"]
    text = "\n".join(source.read_text() for source in sources)
    for event in logs.WARNINGS:
        assert f'"{event}"' in text, f"nothing logs {event!r}"


def test_what_operations_calls_an_alarm_is_a_warning() -> None:
    text = (TOP / "docs" / "operations.md").read_text()
    section = text.split("## What the log says")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z]+ [a-z ]+)`", section)
    assert len(named) >= 6
    for event in named:
        assert any(known.startswith(event) for known in logs.WARNINGS), event
