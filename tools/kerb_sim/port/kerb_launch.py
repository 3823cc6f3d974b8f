"""Plays the ESP32's ROM and _boot.py: mounts the flash, then runs boot.py and main.py.

Rule: what runs afterwards are the very files of firmware/ and shared/; only the modules of this
folder stand in for hardware. They come from the host's folders, mounted at /host, as if they were
frozen into the image; on a board with a console they come from the board's own flash, and the
host's file system is not mounted at all: `mpremote rm -r :` must not reach it.
"""

import os
import sys
import time

import kerb_flash
import kerb_host
import vfs

_PORT = os.getenv("KERB_PORT")
_FIRMWARE = os.getenv("KERB_FIRMWARE")
_SHARED = os.getenv("KERB_SHARED")
_PROMPT = os.getenv("KERB_PROMPT")  # on a board with a console: the mode its prompt begins in

# What the ROM prints, ESP-IDF "Fatal Errors": the reason in words; soft resets pass it by.
_REASONS = {
    "power_on": "rst:0x1 (POWERON_RESET)",
    "hard": "rst:0xc (SW_CPU_RESET)",
    "watchdog": "rst:0xc (SW_CPU_RESET)",
    "deep_sleep": "rst:0x5 (DEEPSLEEP_RESET)",
}


def _mount():
    chip = kerb_flash.SteadyFlash if _PROMPT else kerb_flash.Flash
    flash = chip(os.getenv("KERB_FLASH"), int(os.getenv("KERB_FLASH_BLOCKS")))
    vfs.umount("/")
    try:
        disk = vfs.VfsLfs2(flash, progsize=32, readsize=32, lookahead=32)
    except OSError:
        disk = _format(flash)
    vfs.mount(disk, "/")


def _format(flash):
    """Format a blank flash; stop at a damaged one, as the port's inisetup.py does."""
    first = bytearray(kerb_flash.BLOCK_BYTES)
    flash.readblocks(0, first)
    if first != b"\xff" * len(first):
        print("virtual board: the file system appears to be corrupted; erase and flash again")
        while True:
            time.sleep_ms(1000)
    print("virtual board: blank flash, formatting")
    vfs.VfsLfs2.mkfs(flash)
    return vfs.VfsLfs2(flash)


def _execute(name):
    with open(f"/host{_FIRMWARE}/{name}") as file:
        source = file.read()
    exec(compile(source, name, "exec"), {"__name__": "__main__"})


def _run_frozen():
    """A board without a console: the application is part of the image."""
    vfs.mount(kerb_host.files, "/host")
    # What is frozen into the image comes first, as on the port.
    sys.path[:] = [".frozen", "/host" + _PORT, "/host" + _FIRMWARE, "/host" + _SHARED]
    for name in ("boot.py", "main.py"):
        try:
            _execute(name)
        except SystemExit:
            kerb_host.halt("reset", "soft", kerb_flash.operations)
        except Exception as error:  # as the port does: a traceback, then the prompt
            sys.print_exception(error)
            break
    kerb_host.call("prompt")
    while True:
        time.sleep_ms(100)


def _run_stock(repl):
    """A board with a console: the application is what lies on its flash, if anything."""
    sys.path[:] = ["", ".frozen", "/lib"]
    mode = _PROMPT
    if _start(repl, mode):
        kerb_host.call("prompt")
        mode = repl.serve(mode)
    print("MPY: soft reboot")
    kerb_host.halt("soft_reset", mode, kerb_flash.operations)


def _start(repl, mode):
    """Run boot.py, then main.py unless a tool waits in the raw REPL; False: soft reset."""
    for name in ("boot.py", "main.py") if mode == repl.FRIENDLY else ("boot.py",):
        try:
            with open("/" + name) as file:
                source = file.read()
        except OSError:
            continue
        error = repl.execute(source, name)
        if isinstance(error, SystemExit):
            return False
        if error is not None:
            sys.print_exception(error)
            break
    return True


def _announce():
    cause = os.getenv("KERB_CAUSE")
    if cause == "watchdog":
        print("E (0) task_wdt: Task watchdog got triggered.")
    if cause in _REASONS:
        print(f"{_REASONS[cause]},boot:0x13 (SPI_FAST_FLASH_BOOT)")


if _PROMPT:
    # Built into the port, so there before the host's files are gone from sight.
    import bluetooth  # noqa: F401
    import kerb_repl
    import machine  # noqa: F401

    _announce()
_mount()
kerb_flash.cut_at(int(os.getenv("KERB_CUT_AT") or 0))
kerb_host.start()
if _PROMPT:
    _run_stock(kerb_repl)
else:
    _run_frozen()
