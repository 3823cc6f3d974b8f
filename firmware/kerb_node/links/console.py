"""The technician's window: after a reset a tool may stop the application before the watchdog runs.

Rule: the ESP32's watchdog cannot be stopped once started and deep sleep hides the serial port, so
this window is the only moment when a person at the USB port comes first.
"""

import select
import sys
import time

_KEYS = b"m \r\n\x01\x02\x03"  # what people, kerb and mpremote send first
_LOOK_MS = 50


def asked_for(window_ms):
    """Wait up to window_ms for a key on the console; tell whether one came.

    Any other byte is noise: a USB bridge without supply holds the line low, which reads as 0x00.
    """
    if not window_ms:
        return False
    print(f"kerbstone: press m or Enter within {window_ms} ms for maintenance")
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    start = time.ticks_ms()
    try:
        while time.ticks_diff(time.ticks_ms(), start) < window_ms:
            if not poll.poll(_LOOK_MS):
                continue
            key = sys.stdin.buffer.read(1)  # bytes: noise need not be text
            if not key:
                return False  # end of file polls as readable too: a closed console asks nothing
            if key in _KEYS:
                return True
    except KeyboardInterrupt:
        return True  # Ctrl-C, where the port turns it into this
    return False
