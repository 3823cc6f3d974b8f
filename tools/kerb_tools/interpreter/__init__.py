"""The host MicroPython: found, probed, or provisioned into a cache."""

from kerb_tools.interpreter.finder import InterpreterError, find
from kerb_tools.interpreter.probe import Interpreter

__all__ = ["Interpreter", "InterpreterError", "find"]
