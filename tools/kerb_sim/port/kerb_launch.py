"""Plays the ESP32's ROM and _boot.py: mounts the flash, then runs boot.py and main.py.

Rule: what runs afterwards are the very files of firmware/ and shared/; only the modules of this
folder stand in for hardware. The host's file system is left mounted at /host for the stand-ins
alone.
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


def _mount():
    flash = kerb_flash.Flash(os.getenv("KERB_FLASH"), int(os.getenv("KERB_FLASH_BLOCKS")))
    host = vfs.VfsPosix("/")
    vfs.umount("/")
    try:
        disk = vfs.VfsLfs2(flash, progsize=32, readsize=32, lookahead=32)
    except OSError:
        disk = _format(flash)
    vfs.mount(disk, "/")
    vfs.mount(host, "/host")


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


def _run():
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


_mount()
# What is frozen into the image comes first, as on the port.
sys.path[:] = [".frozen", "/host" + _PORT, "/host" + _FIRMWARE, "/host" + _SHARED]
kerb_flash.cut_at(int(os.getenv("KERB_CUT_AT") or 0))
kerb_host.start()
_run()
