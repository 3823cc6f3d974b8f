"""The wires between a virtual board's process and the host: calls, replies, events.

Rule: a call is answered before it returns; an event arrives in a thread of its own and is handed
to the scheduler, as the port's soft interrupts are.
"""

import _thread
import json

import micropython
import vfs

CALL_FD = 4
REPLY_FD = 3
EVENT_FD = 5

_calls = open(f"/dev/fd/{CALL_FD}", "wb")
_replies = open(f"/dev/fd/{REPLY_FD}", "rb")
_events = open(f"/dev/fd/{EVENT_FD}", "rb")

# The host's file system for the stand-ins alone; also on a board that does not mount it.
files = vfs.VfsPosix("/")

_lock = _thread.allocate_lock()
_waiting = []
_handlers = {}


def call(operation, *arguments):
    """Ask the host and return its answer; OSError with the host's errno if it refuses."""
    try:
        _calls.write(json.dumps([operation, arguments]) + "\n")
        answer = json.loads(_replies.readline())
    except KeyboardInterrupt:
        _catch_up()
        raise
    if isinstance(answer, dict):
        raise OSError(answer["errno"])
    return answer


def _catch_up():
    """Drop what is left of the answer to a call that Ctrl-C broke off."""
    _calls.write(json.dumps(["sync", []]) + "\n")
    while not _replies.readline().endswith(b'"sync"\n'):
        pass


def halt(operation, *arguments):
    """Tell the host that the chip stops here; the process is ended from outside."""
    _calls.write(json.dumps([operation, arguments]) + "\n")
    while True:
        try:
            _replies.readline()
        except KeyboardInterrupt:
            pass  # too late to interrupt anything


def on(kind, handler):
    """Register the function that gets the events of one kind (a list each)."""
    _handlers[kind] = handler


def _dispatch(_):
    while True:
        with _lock:
            if not _waiting:
                return
            event = _waiting.pop(0)
        handler = _handlers.get(event[0])
        if handler is not None:
            handler(event)


def _listen():
    while True:
        line = _events.readline()
        if not line:
            return
        with _lock:
            _waiting.append(json.loads(line))
        try:
            micropython.schedule(_dispatch, 0)
        except RuntimeError:
            pass  # the scheduler's queue is full: a dispatch that takes all is already in it


def start():
    """Begin to hear events."""
    _thread.stack_size(64 * 1024)
    _thread.start_new_thread(_listen, ())
