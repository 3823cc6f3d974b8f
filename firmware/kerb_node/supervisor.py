"""Keeps the application alive: reset cause, watchdog, crash count, safe mode.

Rule: a crash is counted in NVS before the restart; after `crash_limit` in a row the node enters
safe mode, and one good run ends the count. What the ESP32 port calls a hard reset is a panic of
the firmware below us or machine.reset() (ports/esp32/modmachine.c), with which a technician's
tool restarts a board: one alone proves nothing, so `crash_limit` is at least 2. A power-on may be
a brown-out.
"""

import io
import sys
import time

import machine
from kerb_wire.words import RESET_CAUSES, code

_CRASHES = "crashes"
_STARTS = "starts"
_WEAK_STARTS = (
    5  # so many power-ons in a row without a whole wake: the cell breaks down under load
)
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
        if self.cause in ("watchdog", "hard"):
            self._count()

    def cause_code(self):
        """Return the reset cause as a number of words.RESET_CAUSES."""
        return code(RESET_CAUSES, self.cause)

    @property
    def safe_mode(self):
        """True after `crash_limit` crashes in a row."""
        return self.crashes >= self._crash_limit

    def weak_supply(self):
        """Count a power-on; tell whether too many in a row ended before their wake did.

        A nearly empty cell breaks down when the radio starts, recovers, and so on for ever. The
        timer wake after a long sleep tries again.
        """
        if self.cause != "power_on":
            return False
        starts = min(self._store.get_int(_STARTS, 0) + 1, _WEAK_STARTS + 1)
        self._store.set_int(_STARTS, starts)
        return starts > _WEAK_STARTS

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
        """The run did its work: the next crash, or start, counts from one again."""
        if self._store.get_int(_STARTS, 0):
            self._store.set_int(_STARTS, 0)
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
