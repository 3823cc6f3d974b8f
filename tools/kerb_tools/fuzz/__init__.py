"""Fuzzing: everything that takes a stranger's bytes is a target, and must refuse in its own words.

Rule: a target returns or raises the errors that it is allowed to; what else happens (another
error, a broken promise, a hang, memory without end, two interpreters that disagree) is a finding,
kept as a line of text that the tests replay for ever.
"""
