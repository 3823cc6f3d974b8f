"""Composes the application by the role that this board was provisioned for.

Rule: no hardware here; a crash is counted, written down, and ends in a restart, never in silence.
"""

import gc

from kerb_wire.words import ROLES

from kerb_node import board, config, identity, sleep
from kerb_node.links import console
from kerb_node.readinglog import ReadingLog
from kerb_node.supervisor import Supervisor

_LOG = "/log"
_UNPROVISIONED_SLEEP_MS = 3600000
_CRASH_PAUSE_MS = 1000
_LAMP_PAUSE_MS = 60000  # in safe mode; a lamp goes on burning meanwhile


def run():
    """Start this node's role; returns only when a technician asked for maintenance."""
    settings = config.load(config.PATH)
    for complaint in settings.complaints:
        print("settings:", complaint)
    store = identity.NvsStore()
    supervisor = Supervisor(store, settings.crash_limit)
    # The RTS line resets the ESP32 as if by power; after a watchdog a lamp must not wait.
    if supervisor.cause == "power_on" and console.asked_for(settings.console_window_ms):
        print("kerbstone: maintenance; reset the board to start the application")
        return
    supervisor.watch(settings.watchdog_ms)
    row = identity.load(store)
    if row is None:
        print("kerbstone: unprovisioned: no valid identity in NVS or /identity.bin")
        row = identity.remnant(store)
    if row is None:
        sleep.retain(b"")
        sleep.until(_UNPROVISIONED_SLEEP_MS, ())
    role = ROLES[row.role]
    if role != "lamp" and supervisor.weak_supply():
        print("kerbstone: the supply breaks down at each start: sleeping")
        sleep.until(settings.safe_mode_wake_ms, ())
    in_safe_mode = supervisor.safe_mode
    try:
        _run_role(role, settings, store, row, supervisor)
    except Exception as error:  # the top of an unattended device: count it, write it, restart
        supervisor.crashed(error)
        if role == "lamp":
            supervisor.pause(_LAMP_PAUSE_MS if in_safe_mode else _CRASH_PAUSE_MS)
            sleep.until(1, ())
        # Safe mode that crashes itself would else wear the flash once a second.
        sleep.until(settings.safe_mode_wake_ms if in_safe_mode else _CRASH_PAUSE_MS, ())


def _run_role(role, settings, store, row, supervisor):
    gc.collect()  # what importing left behind would else split the heap for good
    epoch = identity.epoch_of(store)
    began = identity.log_began_of(store)
    log = ReadingLog(_LOG, epoch, settings.log_segments, settings.log_rows, began)
    identity.note_log_began(store, log.began())
    if role == "lamp":
        from kerb_node.lamp import LampNode

        LampNode(settings, store, row, epoch, log, supervisor).run()
    else:
        from kerb_node.bin import BinNode

        node = BinNode(
            board.BinBoard(), settings, store, row, epoch, log, supervisor, board.service_on()
        )
        node.run()
