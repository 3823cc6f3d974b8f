"""Starts the application that this board was provisioned for.

Rule: what fails before the application has its watchdog must not keep a battery board awake.
"""

import sys
import time

import machine

_CONSOLE_S = 10
_SLEEP_MS = 600000

try:
    from kerb_node.relight import relight

    relight()  # before the application is even loaded: a lamp stays dark for as long as that takes

    from kerb_node import app

    app.run()
except Exception as error:
    sys.print_exception(error)
    print(f"kerbstone: does not start, sleeps in {_CONSOLE_S} s; Ctrl-C before that stays here")
    time.sleep(_CONSOLE_S)
    machine.deepsleep(_SLEEP_MS)
