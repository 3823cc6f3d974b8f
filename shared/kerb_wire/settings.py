"""A node's settings as data: what /settings.json may say, its product defaults and its bounds.

Rule: the node, the technician's tool that writes the file, and docs/settings.md read this table.
All values are whole numbers with the unit in their name. What only two of them say together,
the size of the log, is bounded too.
"""

from kerb_wire.layout import is_whole

# name: (default, lowest, highest)
SETTINGS = {
    # bin
    "wake_interval_ms": (900000, 500, 86400000),
    "service_wake_ms": (30000, 500, 3600000),
    "pings": (7, 3, 15),
    "ping_gap_ms": (60, 40, 100),
    "blind_zone_mm": (250, 0, 1000),
    "reach_mm": (4500, 500, 10000),
    "advert_ms": (400, 50, 10000),
    "advert_interval_ms": (100, 20, 1000),
    "connectable_every": (8, 1, 1000),
    "backlog_connect": (16, 1, 255),
    "connect_window_ms": (2000, 200, 20000),
    "safe_mode_wake_ms": (3600000, 1000, 86400000),
    # lamp
    "fail_safe_level_pct": (70, 0, 100),
    "silence_ms": (900000, 1000, 86400000),
    "log_interval_ms": (900000, 500, 86400000),
    "min_level_pct": (10, 0, 100),
    "pwm_hz": (1000, 100, 20000),
    "baudrate": (19200, 1200, 115200),
    "fade_ms": (2000, 0, 60000),
    # a lamp's faults; the two senses are options of the board (docs/hardware.md)
    "nominal_load_ma": (0, 0, 1000),  # current at full light; 0: no load sense fitted
    "supply_min_mv": (0, 0, 30000),  # 0: no supply sense fitted
    "failure_load_pct": (50, 10, 80),  # of the current that the level should draw
    "day_burner_pct": (10, 5, 50),  # of the nominal current, at level 0
    "fault_after_ms": (5000, 1000, 600000),
    "fault_gap_ms": (60000, 1000, 3600000),  # flash wear: from one fault record to the next
    "cycles_most": (4, 2, 20),
    "cycling_window_ms": (3600000, 60000, 86400000),
    # both
    "watchdog_ms": (30000, 3000, 300000),  # the longest burst takes 2.7 s
    "crash_limit": (3, 2, 20),  # one alone may be a tool's restart: see supervisor.py
    "console_window_ms": (2000, 0, 10000),
    "log_segments": (16, 2, 64),
    "log_rows": (128, 4, 1024),
}

# Half of the 2 MiB file system of an ESP32 with 4 MiB of flash: 28 bytes a record, whole blocks.
LOG_RECORDS_MAX = 32768


_SHOWN_MAX = 40


def _shown(value) -> str:
    """Return a value as a short text; of a nested one its type, which takes no stack to say."""
    scalar = value is None or isinstance(value, (int, float, str))
    text = repr(value) if scalar else type(value).__name__
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def complaint(name: str, value) -> str | None:
    """Return what is wrong with a setting, or None; a text of bounded length."""
    if name not in SETTINGS:
        return (
            f"{str(name)[:_SHOWN_MAX]}: no such setting"  # MicroPython's JSON has other names too
        )
    default, low, high = SETTINGS[name]
    if not is_whole(value, low, high):
        return f"{name} = {_shown(value)}: not {low} to {high}; the default is {default}"
    return None


def log_complaint(segments: int, rows: int) -> str | None:
    """Return what is wrong with the log's two settings together, or None.

    With the default of log_segments any log_rows is right.
    """
    if segments * rows <= LOG_RECORDS_MAX:
        return None
    return (
        f"log_segments = {segments} with log_rows = {rows}: {segments * rows} records, and the "
        f"flash takes {LOG_RECORDS_MAX}: lower one of them; the default of log_segments is "
        f"{SETTINGS['log_segments'][0]}"
    )
