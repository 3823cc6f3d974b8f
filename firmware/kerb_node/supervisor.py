"""Keeps the application alive: reset cause, watchdog, crash count, safe mode.

Rule: a crash is counted in NVS before the restart; after `crash_limit` in a row the node enters
safe mode, and one good run ends the count.
"""

import io
import sys
import time

import machine
from kerb_wire.words import RESET_CAUSES, code

_CRASHES = "crashes"
_PATH = "/crash.txt"
_TEXT_MAX_BYTES = 1024
_NAP_MS = 500

_CAUSES = {
    machine.PWRON_RESET: "power_on",
    machine.HARD_RESET: "hard",
    machine.WDT_RESET: "watchdog",
    machine.DEEPSLEEP_RESET: "deep_sleep",
    machine.SOFT_RESET: "soft",
}


class Supervisor:
    """One for each run of the application."""

    def __init__(self, store, crash_limit):
        self._store = store
        self._crash_limit = crash_limit
        self._watchdog = None
        self.cause = _CAUSES.get(machine.reset_cause(), "unknown")
        self.crashes = store.get_int(_CRASHES, 0)
        if self.cause == "watchdog":
            self._count()

    def cause_code(self):
        """Return the reset cause as a number of words.RESET_CAUSES."""
        return code(RESET_CAUSES, self.cause)

    @property
    def safe_mode(self):
        """True after `crash_limit` crashes in a row."""
        return self.crashes >= self._crash_limit

    def watch(self, timeout_ms):
        """Start the watchdog; the ESP32's cannot be stopped again."""
        self._watchdog = machine.WDT(timeout=timeout_ms)

    def feed(self):
        """Tell the watchdog that the application still makes progress."""
        if self._watchdog is not None:
            self._watchdog.feed()

    def pause(self, duration_ms):
        """Wait awake, outputs as they are, with the watchdog fed."""
        start = time.ticks_ms()
        while time.ticks_diff(time.ticks_ms(), start) < duration_ms:
            self.feed()
            time.sleep_ms(min(_NAP_MS, duration_ms))

    def good(self):
        """The run did its work: the next crash counts from one again."""
        if self.crashes and not self.safe_mode:
            self.crashes = 0
            self._store.set_int(_CRASHES, 0)

    def leave_safe_mode(self):
        """Someone has been here, or all was well for long: the count begins anew."""
        if self.crashes:
            self.crashes = 0
            self._store.set_int(_CRASHES, 0)

    def crashed(self, error):
        """Count a crash and keep its traceback in /crash.txt (at most 1,024 bytes)."""
        self._count()
        record = io.StringIO()
        sys.print_exception(error, record)
        text = record.getvalue()
        print(text)
        try:
            with open(_PATH, "w") as file:
                file.write(text[:_TEXT_MAX_BYTES])
        except OSError:
            print("crash record not written: the flash is full or failing")

    def _count(self):
        # Past the limit there is nothing more to count, and each write wears the flash.
        self.crashes = min(self.crashes + 1, self._crash_limit)
        self._store.set_int(_CRASHES, self.crashes)
