"""What runs unmodified on CPython and on MicroPython: the targets of the wire, and their program.

Rule: the portable subset of shared/ holds here too. On MicroPython this folder itself is on the
path and its files are modules of their own; only wire_answers.py, a program, relies on that.
"""
