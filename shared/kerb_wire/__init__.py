"""kerb_wire: the language that nodes and gateways speak.

Rule of the package: pure. No clock, no I/O, no logging; every file runs unmodified on
MicroPython (ESP32, >= 1.24) and on CPython. Bad input raises an error of kerb_wire.errors
that says who is to blame, and nothing else.
"""

WIRE_VERSION = 1
