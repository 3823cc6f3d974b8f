"""One peer's visit: its bytes go to the dialogue, the answers back, for a bounded time.

Rule: who has not begun within GREETING_TIMEOUT_MS, or has not proved himself within
AUTH_TIMEOUT_MS of his first byte, is sent away; nobody stays longer than SESSION_TIMEOUT_MS, and a
frame that could not be sent whole ends the visit. Radio, dialogue and clock are handed in.

A central may take a second or more from the connection to its first byte: service discovery is a
dozen round trips at 30 to 50 ms each (BlueZ's default connection interval).
"""

from kerb_wire.limits import AUTH_TIMEOUT_MS, GREETING_TIMEOUT_MS, SESSION_TIMEOUT_MS

POLL_MS = 5


def serve(radio, dialogue, keep_alive, clock):
    """Serve the connected peer until it leaves, is done, or is out of time; then drop it.

    radio: connected, read(), write(frame) -> bool, drop(); keep_alive: feeds the watchdog;
    clock: ticks_ms, ticks_diff, sleep_ms, as the module time has them.
    """
    time_left = _TimeLeft(dialogue, clock)
    while radio.connected and not dialogue.done and not time_left.over():
        if not _pass_on(radio, dialogue, keep_alive, time_left):
            break
        clock.sleep_ms(POLL_MS)
    radio.drop()


def _pass_on(radio, dialogue, keep_alive, time_left):
    """Answer what has come in; False when the visit must end in the middle of it."""
    keep_alive()
    data = radio.read()
    if data:
        time_left.begun()
    for answer in dialogue.feed(data):
        if time_left.over() or not radio.write(answer):
            return False
        keep_alive()
    return True


class _TimeLeft:
    """How long a visit may still last, by how far the peer has come."""

    def __init__(self, dialogue, clock):
        self._dialogue = dialogue
        self._clock = clock
        self._start = clock.ticks_ms()
        self._first = None

    def begun(self):
        """The peer's first byte is there."""
        if self._first is None:
            self._first = self._clock.ticks_ms()

    def over(self):
        """Tell whether the peer has used up its time."""
        now = self._clock.ticks_ms()
        since_ms = self._clock.ticks_diff(now, self._start)
        if self._dialogue.proven or since_ms > SESSION_TIMEOUT_MS:
            return since_ms > SESSION_TIMEOUT_MS
        if self._first is None:
            return since_ms > GREETING_TIMEOUT_MS
        return self._clock.ticks_diff(now, self._first) > AUTH_TIMEOUT_MS
