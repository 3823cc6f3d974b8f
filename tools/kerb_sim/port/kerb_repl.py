"""The port's prompt, as far as people and mpremote use it: friendly and raw REPL, raw-paste mode.

Rule: byte for byte what a tool sees of the port. Sources: MicroPython documentation, "The
MicroPython Interactive Interpreter Mode (aka REPL)", sections "Raw mode and raw-paste mode"; what
it leaves open is as in shared/runtime/pyexec.c. Not played: editing beyond backspace, blocks of
several lines, paste mode and the help of the friendly prompt.
"""

import sys
import time

import kerb_host

FRIENDLY, RAW = "friendly", "raw"

_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D, _CTRL_E = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
_BACKSPACES = (b"\x08", b"\x7f")
_RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n"
_WINDOW_BYTES = 128  # half of the port's buffer of 256
_MACHINE = "Kerbstone's virtual board with ESP32"

_namespace = {"__name__": "__main__"}
_in, _out = sys.stdin.buffer, sys.stdout.buffer


def execute(source, name, kind="exec"):
    """Run a program under Ctrl-C; return the exception that ended it, or None."""
    try:
        try:
            kerb_host.call("attend", True)
            exec(compile(source, name, kind), _namespace)
        finally:
            _turn_deaf()
    except BaseException as error:  # whatever ends a program ends in the prompt
        return error
    return None


def _turn_deaf():
    """From here on Ctrl-C is a byte like any other; one that was on its way is let go."""
    while True:
        try:
            return kerb_host.call("attend", False)
        except KeyboardInterrupt:
            pass


def serve(mode):
    """Hold the prompt until a soft reset is asked for; return the mode that it was asked in."""
    while True:
        if mode == RAW:
            if _raw():
                return RAW
            mode = FRIENDLY
        else:
            if _friendly():
                return FRIENDLY
            mode = RAW


def _receive():
    """Return the next byte of the console."""
    while True:
        octet = _in.read(1)
        if octet:
            return octet
        time.sleep_ms(100)  # the chip's input has ended: the host is about to stop it


def _greet():
    version = sys.version.split("; ")[-1]
    _out.write(f"{version}; {_MACHINE}\r\n".encode())
    _out.write(b'Type "help()" for more information.\r\n>>> ')


def _friendly():
    """Lines of one statement each; True: soft reset, False: to the raw REPL."""
    _greet()
    line = b""
    while True:
        octet = _receive()
        if octet == _CTRL_A and not line:
            return False
        if octet == _CTRL_B and not line:
            _out.write(b"\r\n")
            _greet()
        elif octet == _CTRL_D and not line:
            _out.write(b"\r\n")
            return True
        elif octet == _CTRL_C:
            line = b""
            _out.write(b"\r\n>>> ")
        elif octet in (b"\r", b"\n"):
            _out.write(b"\r\n")
            if line and _finish_line(line):
                return True
            line = b""
            _out.write(b">>> ")
        elif octet in _BACKSPACES:
            if line:
                line = line[:-1]
                _out.write(b"\x08 \x08")
        elif octet >= b" ":
            line += octet
            _out.write(octet)


def _finish_line(line):
    """Run a line of the friendly prompt; True: it asked for a soft reset."""
    error = execute(line, "<stdin>", "single")
    if isinstance(error, SystemExit):
        return True
    if error is not None:
        sys.print_exception(error)
    return False


def _raw():
    """Programs framed by control characters; True: soft reset, False: to the friendly REPL."""
    _out.write(_RAW_BANNER + b">")
    line = b""
    while True:
        octet = _receive()
        if octet == _CTRL_A and line[:1] == _CTRL_E and len(line) == 2:
            if _raw_paste(line[1:]):
                return True
            line = b""
            _out.write(b">")
        elif octet == _CTRL_A:
            line = b""
            _out.write(_RAW_BANNER + b">")
        elif octet == _CTRL_B:
            _out.write(b"\r\n")
            return False
        elif octet == _CTRL_C:
            line = b""
        elif octet != _CTRL_D:
            line += octet
        else:
            _out.write(b"OK")
            if not line:
                _out.write(b"\r\n")
                return True
            if _finish_program(line):
                return True
            line = b""
            _out.write(b">")


def _raw_paste(command):
    """Take a program in windows that the board grants; True: it asked for a soft reset."""
    if command != b"A":
        _out.write(b"R\x00")
        return False
    _out.write(b"R\x01" + bytes((_WINDOW_BYTES & 0xFF, _WINDOW_BYTES >> 8, 1)))
    parts, part = [], b""
    while True:
        octet = _receive()
        if octet == _CTRL_C:
            _out.write(b"\x04\x04")  # as a program that KeyboardInterrupt has ended
            return False
        if octet == _CTRL_D:
            _out.write(b"\x04")
            return _finish_program(b"".join(parts) + part)
        part += octet
        if len(part) == _WINDOW_BYTES:
            parts.append(part)
            part = b""
            _out.write(b"\x01")


def _finish_program(source):
    """Run a program between the two ends of file; True: it asked for a soft reset."""
    error = execute(source, "<stdin>")
    _out.write(b"\x04")
    if error is not None and not isinstance(error, SystemExit):
        sys.print_exception(error)
    _out.write(b"\x04")
    return isinstance(error, SystemExit)
