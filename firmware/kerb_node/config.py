"""The node's settings: product defaults, and what /settings.json changes of them.

Rule: a setting that is unknown, of the wrong type or out of bounds is reported and its default
used; a bad file never keeps a node from measuring.
"""

import json

PATH = "/settings.json"

# name: (default, lowest, highest)
DEFAULTS = {
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
    "crash_limit": (3, 1, 20),
    "console_window_ms": (2000, 0, 10000),
    "log_segments": (16, 2, 64),
    "log_rows": (128, 4, 1024),
}


class Settings:
    """The settings as attributes; `complaints` lists what of the file was not taken."""

    def __init__(self, text=None):
        """text: the content of settings.json, or None for the defaults."""
        self.complaints = []
        for name in DEFAULTS:
            setattr(self, name, DEFAULTS[name][0])
        if text is not None:
            self._apply(text)

    def _apply(self, text):
        try:
            given = json.loads(text)
        except ValueError as error:
            self.complaints.append(f"settings.json is not JSON ({error}): defaults used")
            return
        if not isinstance(given, dict):
            self.complaints.append("settings.json is not an object: defaults used")
            return
        for name in given:
            self._set(name, given[name])

    def _set(self, name, value):
        if name not in DEFAULTS:
            self.complaints.append(f"{name}: no such setting")
            return
        default, low, high = DEFAULTS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.complaints.append(f"{name} = {value!r}: not {low} to {high}, {default} used")
            return
        setattr(self, name, value)


def load(path):
    """Return the Settings of a file; without the file, the defaults."""
    try:
        with open(path) as file:
            return Settings(file.read())
    except OSError:
        return Settings()
