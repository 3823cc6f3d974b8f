"""One peer's visit: its bytes go to the dialogue, the answers back, for a bounded time.

Rule: who has not proved himself within AUTH_TIMEOUT_MS is sent away, nobody stays longer than
SESSION_TIMEOUT_MS, and a frame that could not be sent whole ends the visit. Radio, dialogue and
clock are handed in.
"""

from kerb_wire.limits import AUTH_TIMEOUT_MS, SESSION_TIMEOUT_MS

POLL_MS = 5


def serve(radio, dialogue, keep_alive, clock):
    """Serve the connected peer until it leaves, is done, or is out of time; then drop it.

    radio: connected, read(), write(frame) -> bool, drop(); keep_alive: feeds the watchdog;
    clock: ticks_ms, ticks_diff, sleep_ms, as the module time has them.
    """
    start = clock.ticks_ms()
    while radio.connected and not dialogue.done and not _late(dialogue, clock, start):
        if not _pass_on(radio, dialogue, keep_alive, clock, start):
            break
        clock.sleep_ms(POLL_MS)
    radio.drop()


def _pass_on(radio, dialogue, keep_alive, clock, start):
    """Answer what has come in; False when the visit must end in the middle of it."""
    keep_alive()
    for answer in dialogue.feed(radio.read()):
        if _late(dialogue, clock, start) or not radio.write(answer):
            return False
        keep_alive()
    return True


def _late(dialogue, clock, start):
    limit_ms = SESSION_TIMEOUT_MS if dialogue.proven else AUTH_TIMEOUT_MS
    return clock.ticks_diff(clock.ticks_ms(), start) > limit_ms
