#!/usr/bin/env python3
"""Writes the generated tables of docs/ from the code; with --check only compares them.

Rule: between two marks stands what this file makes, and nothing else of a page is touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kerb_wire import messages, records, registers, settings, words
from kerb_wire.layout import Layout
from mutants import MUTANTS
from planted import PLANTED

DOCS = Path(__file__).resolve().parents[1] / "docs"

# What a register means; a test fails when one of the map has no line here.
MEANINGS = {
    "map_version": "version of this map",
    "node_id": "base MAC",
    "epoch": "the epoch of its sequence numbers",
    "boot_no": "number of this boot",
    "uptime_s": "seconds since it began",
    "first_seq": "oldest record on flash",
    "last_seq": "newest number used or skipped",
    "acked_seq": "the gateway's last acknowledgement",
    "level_pct": "level right now, 0 to 100",
    "target_level_pct": "level that a fade goes to",
    "reason": "why: " + ", ".join(f"{n} {w}" for n, w in enumerate(words.REASONS)),
    "faults": "bits: " + ", ".join(f"{1 << n} {w}" for n, w in enumerate(words.FAULTS)),
    "burn_min": "minutes burnt",
    "command_no": "number of the last command ended",
    "command_outcome": ", ".join(f"{n} {w}" for n, w in enumerate(words.OUTCOMES)),
    "override_left_s": "seconds that the override still lasts",
    "reset_cause": ", ".join(f"{n} {w}" for n, w in enumerate(words.RESET_CAUSES)),
    "bad_frames": "frames with a wrong length or CRC",
    "switch_count": "times switched on or off",
    "ack_epoch": "epoch of the acknowledgement; 0: none",
    "ack_seq": "everything up to this number is stored at the gateway",
    "new_command_no": "number of a command; 0: none",
    "new_level_pct": "its level",
    "new_fade_ms": "its fade",
    "new_hold_s": "how long it holds",
    "new_life_s": "what is left of its life; 0: expired",
    "echo": "token; writing it sets the block off, reading it ties an answer to its request",
}


SETTING_MEANINGS = {
    "wake_interval_ms": "bin: from one measurement to the next",
    "service_wake_ms": "bin: from one wake to the next while the magnet is there",
    "pings": "bin: pings of a burst",
    "ping_gap_ms": "bin: pause between pings; 60 and more keeps old echoes out",
    "blind_zone_mm": "bin: nearer than this the transducer cannot tell",
    "reach_mm": "bin: farther than this is out of range",
    "advert_ms": "bin: how long an advert is repeated",
    "advert_interval_ms": "bin: from one repetition to the next; where no connection is offered "
    "at least 100",
    "connectable_every": "bin: each n-th wake opens the door to a gateway",
    "backlog_connect": "bin: so many records unacknowledged open it too",
    "connect_window_ms": "bin: how long it stays open",
    "safe_mode_wake_ms": "bin: from one wake to the next after repeated crashes or brown-outs",
    "fail_safe_level_pct": "lamp: level when the gateway is silent",
    "silence_ms": "lamp: the gateway counts as silent after that",
    "log_interval_ms": "lamp: from one record to the next",
    "min_level_pct": "lamp: a command below it (but 0) is refused",
    "pwm_hz": "lamp: frequency of the output",
    "baudrate": "lamp: of the RS-485 bus, even parity",
    "fade_ms": "lamp: fade of what no command asked for",
    "nominal_load_ma": "lamp: current at full light; 0: no load sense fitted",
    "supply_min_mv": "lamp: supply loss below it; 0: no supply sense fitted",
    "failure_load_pct": "lamp: failed below that share of the current that the level should draw",
    "day_burner_pct": "lamp: burns by day above that share of the nominal current at level 0",
    "fault_after_ms": "lamp: how long a sign holds before it is a fault, or none any more",
    "fault_gap_ms": "lamp: least time from one fault record to the next",
    "cycles_most": "lamp: more failures than that within the window are cycling",
    "cycling_window_ms": "lamp: the window",
    "watchdog_ms": "restart when the application makes no progress for so long",
    "crash_limit": "crashes in a row that lead to safe mode; the restart of kerb flash counts too",
    "console_window_ms": "how long a reset board listens for a technician's key",
    "log_segments": "files of the reading log; the oldest goes when a new one is needed",
    "log_rows": "records in one of them",
}


def settings_page() -> str:
    """Return the whole page of a node's settings."""
    lines = [
        "# Settings of a node\n",
        "Made by `make docs` from `shared/kerb_wire/settings.py`. `kerb provision --set NAME=N` "
        "writes them into settings.json; what is not there has its default.\n",
        "| Name | Default | From | To | Meaning |",
        "|---|---|---|---|---|",
    ]
    for name, (default, low, high) in settings.SETTINGS.items():
        lines.append(f"| {name} | {default} | {low} | {high} | {SETTING_MEANINGS[name]} |")
    lines.append(
        f"\nlog_segments times log_rows is at most {settings.LOG_RECORDS_MAX} records, 1 MiB of "
        "flash. On a file system that is full all the same the oldest records go first."
    )
    return "\n".join(lines) + "\n"


def layout_table(layout: Layout) -> str:
    """Return a Markdown table of a layout's fields."""
    lines = [f"### {layout.name}\n", "| Field | Type | Allowed |", "|---|---|---|"]
    lines += [f"| {field.name} | {field.kind} | {field.allowed()} |" for field in layout.fields]
    return "\n".join(lines) + "\n"


def wire() -> str:
    """Return the messages', records' and words' tables."""
    parts = ["## Messages\n"]
    for kind, layout in messages.LAYOUTS.items():
        parts.append(layout_table(layout).replace("\n", f" (kind {kind})\n", 1))
    parts.append("## Records\n")
    layouts = (records.FILL_LAYOUT, records.LAMP_LAYOUT, records.LOST_LAYOUT)
    parts += [layout_table(layout) for layout in layouts]
    parts.append("## Words\n\n| | Numbers |\n|---|---|")
    for name in ("ROLES", "QUALITIES", "REASONS", "EVENTS", "OUTCOMES", "LOSSES", "RESET_CAUSES"):
        row = ", ".join(f"{n} {word}" for n, word in enumerate(getattr(words, name)))
        parts.append(f"| {name.lower()} | {row} |")
    row = ", ".join(f"{1 << n} {word}" for n, word in enumerate(words.FAULTS))
    parts.append(f"| faults (bits) | {row} |")
    return "\n".join(parts) + "\n"


def register_map() -> str:
    """Return the whole page of the register map."""
    lines = [
        "# Register map of a lamp\n",
        "Made by `make docs` from `shared/kerb_wire/registers.py`. Numbers of several registers "
        "are big-endian words.\n",
        "Functions: 03, 04, 06, 10h, 17h; 14h for the log; 2Bh/0Eh for the identity.\n",
        "## Status: input registers, mirrored as holding registers\n",
        "| Input | Holding | Words | Name | Meaning |",
        "|---|---|---|---|---|",
    ]
    for name, (address, count) in registers.addresses(registers.STATUS, 0).items():
        mirror = registers.STATUS_MIRROR + address
        lines.append(f"| {address} | {mirror} | {count} | {name} | {MEANINGS[name]} |")
    lines += [
        "\n## Control: holding registers\n",
        "| Holding | Words | Name | Meaning |",
        "|---|---|---|---|",
    ]
    control = registers.addresses(registers.CONTROL, registers.CONTROL_START)
    for name, (address, count) in control.items():
        lines.append(f"| {address} | {count} | {name} | {MEANINGS[name]} |")
    lines += [
        "\n## The log: Read File Record\n",
        f"Record `seq` starts at file 1 + seq // 256, record number (seq % 256) * "
        f"{registers.RECORD_WORDS}; each has {registers.RECORD_WORDS} registers "
        "(wire-format.md). A run that is gone comes as one LostRecord, repeated to fill it.",
    ]
    return "\n".join(lines) + "\n"


def mutant_list() -> str:
    """Return the mutants as a table."""
    lines = ["| Broken | In | Found by |", "|---|---|---|"]
    lines += [f"| {m.name} | {m.file} | {m.test} |" for m in MUTANTS]
    return "\n".join(lines) + "\n"


def planted_list() -> str:
    """Return the planted bugs as a table."""
    lines = ["| Planted | In | Seed | Days | Dense | Found as |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {b.name} | {b.file} | {b.seed} | {b.days} | {b.dense} | {b.found} |" for b in PLANTED
    ]
    return "\n".join(lines) + "\n"


def between(text: str, mark: str, content: str) -> str:
    """Return `text` with `content` between the marks <!-- mark: begin --> and end."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end)[1]


def pages() -> dict[Path, str]:
    """Return every generated page as it should be."""
    wire_page, testing = DOCS / "wire-format.md", DOCS / "testing.md"
    return {
        DOCS / "register-map.md": register_map(),
        DOCS / "settings.md": settings_page(),
        wire_page: between(wire_page.read_text(), "generated", wire()),
        testing: between(
            between(testing.read_text(), "mutants", mutant_list()), "planted", planted_list()
        ),
    }


def main() -> int:
    """Write the pages, or with --check name those that are not as the code says."""
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.name}: not as the code says; run make docs")
        return 1 if stale else 0
    for path, text in pages().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
