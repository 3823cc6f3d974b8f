"""Structured logs: one line an event, readable on a terminal, JSON where none is.

Rule: no secret ever reaches a log call; lines go to standard error, so that standard output stays
the answer of a command. What libraries log by themselves comes in the same form.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Its faults are translated where they enter (links/modbus.py); its own words would repeat them,
# with a dump of the bus on many lines.
_SPOKEN_FOR = ("pymodbus",)
# Events that a person should see; all others are the gateway's everyday life.
WARNINGS = frozenset(
    {
        "a reader pins the write-ahead log",
        "a restore was cut short: the old database stands",
        "advert refused",
        "backup failed",
        "backup restored",
        "dead letters dropped",
        "adverts dropped: queue full",
        "broker has no room",
        "broker does not speak MQTT 5, trying 3.1.1",
        "command left",
        "command refused",
        "damaged database put aside, begun anew",
        "disk full: nothing is acknowledged",
        "group message malformed",
        "little room on the disk: no ballast",
        "link down",
        "message refused",
        "no control socket",
        "node can be claimed no more",
        "no room to remove old rows in: tried again in an hour",
        "sequence numbers do not add up",
        "the database is too large, and giving up readings would not help",
        "retired with open gaps",
        "session failed",
        "subscription refused",
        "tail unknown",
        "too many wrong MICs",
        "the process stood still",
        "undelivered readings given up: no room",
        "unit silent",
        "uplink lost",
        "uplink not connected",
    }
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def setup(level: str, form: str) -> Any:
    """Configure structlog once; form: auto, json or text. Returns the logger."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    _adopt_libraries(shared, renderer)
    return structlog.get_logger()


def _adopt_libraries(shared: list[Any], renderer: Any) -> None:
    """Give the warnings of the libraries the same form, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _SPOKEN_FOR:
        logging.getLogger(name).setLevel(logging.CRITICAL)
