"""The technician's window: after a reset a tool may stop the application before the watchdog runs.

Rule: the ESP32's watchdog cannot be stopped once started and deep sleep hides the serial port, so
this window is the only moment when a person at the USB port comes first.
"""

import select
import sys
import time


def asked_for(window_ms):
    """Wait up to window_ms for a byte on the console; tell whether one came."""
    if not window_ms:
        return False
    print(f"kerbstone: press a key within {window_ms} ms for maintenance")
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    start = time.ticks_ms()
    while time.ticks_diff(time.ticks_ms(), start) < window_ms:
        try:
            if poll.poll(50):
                # End of file polls as readable too: a closed console asks for nothing.
                return bool(sys.stdin.read(1))
        except KeyboardInterrupt:
            return True  # Ctrl-C, which is what mpremote and people send first
    return False
