"""A bench with a real board on a serial port, and what its rig has beside it.

Rule: the board is for tests: its identity, log and numbers are erased before each of them, so one
that is provisioned for another site than "test" is left alone. Words for which the rig lacks a
part skip the test and say which option names that part.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import serial
from board_port import BoardPort, causes
from hearing import Hearing
from kerb_check import flash
from kerb_wire import provisioning
from kerb_wire.errors import RemoteFault
from kerb_wire.words import ROLES
from probe_port import ProbePort
from rig import Rig

_SITE = b"test"
_KEY = bytes(range(16))
_UNIT = 1
_WAIT_S = 20.0
_OFF_S = 0.5
_BUS_BAUD = 115200
_BUS_READ_S = 0.4

_COMMON = {"console_window_ms": 500, "watchdog_ms": 3000}
_SETTINGS = {
    "bin": {
        "wake_interval_ms": 500,
        "service_wake_ms": 500,
        "pings": 3,
        "ping_gap_ms": 40,
        "advert_ms": 200,
        "advert_interval_ms": 20,
        "connect_window_ms": 200,
    },
    "lamp": {
        "baudrate": _BUS_BAUD,
        "silence_ms": 1500,
        "log_interval_ms": 60000,
        "fade_ms": 100,
    },
}

# Only with a probe, which plays the load: an open sense pin would show anything.
_LOAD_SETTINGS = {"nominal_load_ma": 700, "fault_after_ms": 1000, "fault_gap_ms": 1000}
_BURNING_MA = 285  # what 700 mA nominal draw at the fail-safe level, 40.7 % of the light

_LOOK = """
import esp32, machine, os
print(machine.unique_id().hex(), "kerb_node" in os.listdir("/"))
blob = bytearray(128)
try:
    print(blob[: esp32.NVS("kerb").get_blob("identity", blob)].hex())
except OSError:
    print()
"""
_ERASE = """
import esp32, machine, os
machine.RTC().memory(b"")
nvs = esp32.NVS("kerb")
for key in ("identity", "role_unit", "epoch", "seq_block", "boot_no", "crashes", "burn_s",
            "switches", "starts", "log_began"):
    try:
        nvs.erase_key(key)
    except OSError:
        pass
nvs.commit()
if "log" in os.listdir("/"):
    for name in os.listdir("/log"):
        os.remove("/log/" + name)
"""


class SerialBench:
    """A real board; it is provisioned anew when its power is first switched on."""

    def __init__(self, rig: Rig, role: str) -> None:
        rig.check(role)
        self._rig = rig
        self._role = role
        self._port = BoardPort(rig.board)
        self._probe = None if rig.probe is None else ProbePort(rig.probe, _BURNING_MA)
        self._hearing: Hearing | None = None
        self._node_id = b""

    # --- power ---

    def power_on(self) -> None:
        if not self._node_id:
            self._provision()
        self._port.pump()
        self._port.console = b""
        if not self._supply(False):
            self._reset_board()
            return
        time.sleep(_OFF_S)
        self._supply(True)

    def power_cut(self) -> None:
        if not self._supply(False):
            self._rig.lacks("a switch for the supply", "--power=COMMAND, or --probe=PORT")

    def reset(self) -> None:
        self._reset_board()

    def _supply(self, on: bool) -> bool:
        """Switch the supply; False: this rig cannot."""
        if self._rig.power is not None:
            self._rig.switch("on" if on else "off")
        elif self._probe is not None:
            self._probe.supply(on)
        else:
            return False
        return True

    def _reset_board(self) -> bool:
        if self._port.reset():
            return True
        if self._rig.power is None:
            self._rig.lacks("a reset line", "a port with RTS, or --power=COMMAND")
        self._rig.switch("reset")
        return True

    # --- the board's files ---

    def _provision(self) -> None:
        """Leave the board as new: this role, these settings, no records, no numbers."""
        self._port.enter_maintenance(self._reset_board)
        files = self._port.files
        first, in_nvs = files.exec(_LOOK).decode().splitlines()
        node, has_application = first.split()
        if has_application != "True":
            pytest.skip(f"{self._rig.board} has no application: kerb flash puts it there")
        self._refuse_a_board_in_use(bytes.fromhex(in_nvs))
        if files.fs_exists("/identity.bin"):
            self._refuse_a_board_in_use(bytes(files.fs_readfile("/identity.bin")))
        files.exec(_ERASE)
        self._node_id = bytes.fromhex(node)
        unit = _UNIT if self._role == "lamp" else 0
        role = ROLES.index(self._role)
        blob = provisioning.pack(role, unit, self._node_id, _KEY, _SITE)
        files.fs_writefile("/identity.bin", blob)
        settings = _COMMON | _SETTINGS[self._role]
        if self._role == "lamp" and self._probe is not None:
            settings |= _LOAD_SETTINGS
        files.fs_writefile("/settings.json", json.dumps(settings).encode())
        files.exit_raw_repl()
        self._hearing = Hearing(self._node_id)

    def _refuse_a_board_in_use(self, blob: bytes) -> None:
        try:
            site = bytes(provisioning.unpack(blob).site)
        except RemoteFault:
            return
        if site != _SITE:
            pytest.skip(
                f"{self._rig.board} is provisioned for site {site.decode()!r} and would be "
                "erased: give a board for tests --site test (kerb provision), then kerb flash"
            )

    def stored(self) -> list[dict[str, Any]]:
        self._port.enter_maintenance(self._reset_board)
        files = self._port.files
        image = flash.Flash(self._node_id.hex())
        for name in sorted(entry.name for entry in files.fs_listdir("/log")):
            flash.read_segment(image, bytes(files.fs_readfile(f"/log/{name}")))
        files.exit_raw_repl()
        return [
            reading.content | {"seq": reading.identity.seq, "epoch": reading.identity.epoch}
            for reading in image.readings
        ]

    # --- what it does ---

    def boots(self) -> list[str]:
        self._port.pump()
        return causes(self._port.console)

    def wait_asleep(self) -> None:
        """Asleep, a board says nothing; that it slept is seen when it wakes again."""
        sleeps = self.boots().count("deep_sleep")
        deadline = time.monotonic() + _WAIT_S
        while self.boots().count("deep_sleep") <= sleeps:
            if time.monotonic() > deadline:
                pytest.fail(f"the board did not sleep within {_WAIT_S} s")

    def wait_awake(self) -> None:
        """wait_asleep() returns when it is awake again."""

    def freeze(self) -> None:
        self._port.interrupt()

    def adverts(self) -> dict[int, set[bytes]]:
        if self._hearing is None:
            return {}
        if self._hearing.missing:
            self._rig.lacks(self._hearing.missing, "adverts are heard by this machine's own")
        return dict(self._hearing.adverts)

    def exchange(self, frame: bytes) -> bytes:
        with serial.Serial(
            self._rig.bus, _BUS_BAUD, parity=self._rig.bus_parity, timeout=_BUS_READ_S
        ) as port:
            port.write(frame)
            answer: bytes = port.read(256)
            return answer

    # --- what the probe plays ---

    def _need_probe(self) -> ProbePort:
        if self._probe is None:
            self._rig.lacks("a probe", "--probe=PORT, a second ESP32 that plays the world")
        assert self._probe is not None
        return self._probe

    def place_surface(self, distance_mm: float | None, air_c: float = 20.0) -> None:
        self._need_probe().place_surface(distance_mm, air_c)

    def press_tilt(self) -> None:
        self._need_probe().tilt(True)

    def duty_pct(self) -> float:
        return self._need_probe().duty_pct()

    def fail_lamp(self) -> None:
        self._need_probe().load(0)

    def mend_lamp(self) -> None:
        self._need_probe().load(_BURNING_MA)

    def close(self) -> None:
        if self._hearing is not None:
            self._hearing.close()
        if self._probe is not None:
            self._probe.close()
        self._port.close()
