"""Composes the application by the role that this board was provisioned for.

Rule: no hardware here; a crash is counted, written down, and ends in a restart, never in silence.
"""

from kerb_wire.words import ROLES

from kerb_node import board, config, identity, sleep
from kerb_node.links import console
from kerb_node.readinglog import ReadingLog
from kerb_node.supervisor import Supervisor

_SETTINGS = "/settings.json"
_LOG = "/log"
_UNPROVISIONED_SLEEP_MS = 3600000
_CRASH_PAUSE_MS = 1000


def run():
    """Start this node's role; returns only when a technician asked for maintenance."""
    settings = config.load(_SETTINGS)
    for complaint in settings.complaints:
        print("settings:", complaint)
    store = identity.NvsStore()
    supervisor = Supervisor(store, settings.crash_limit)
    if supervisor.cause != "deep_sleep" and console.asked_for(settings.console_window_ms):
        print("kerbstone: maintenance; reset the board to start the application")
        return
    supervisor.watch(settings.watchdog_ms)
    row = identity.load(store)
    if row is None:
        print("kerbstone: unprovisioned: no valid identity in NVS or /identity.bin")
        sleep.retain(b"")
        sleep.until(_UNPROVISIONED_SLEEP_MS, ())
    try:
        _run_role(settings, store, row, supervisor)
    except Exception as error:  # the top of an unattended device: count it, write it, restart
        supervisor.crashed(error)
        sleep.retain(b"")  # whatever is in RTC memory may be older than the numbers used
        sleep.until(_CRASH_PAUSE_MS, ())


def _run_role(settings, store, row, supervisor):
    epoch = identity.epoch_of(store)
    log = ReadingLog(_LOG, epoch, settings.log_segments, settings.log_rows)
    role = ROLES[row.role]
    if role == "lamp":
        from kerb_node.lamp import LampNode

        LampNode(settings, store, row, epoch, log, supervisor).run()
    else:
        from kerb_node.bin import BinNode

        node = BinNode(
            board.BinBoard(), settings, store, row, epoch, log, supervisor, board.service_on()
        )
        node.run()
