"""Virtual boards for tests that need no street: a bare world and a board on it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from kerb_sim.air.medium import Air
from kerb_sim.board.spec import BLOCK_BYTES, BoardSpec, manufacture
from kerb_sim.board.virtual import VirtualBoard
from kerb_sim.bus.wire import Bus
from kerb_sim.world.luminaire import LOAD_PIN, NOMINAL_MA, SUPPLY_PIN, Luminaire
from kerb_wire import provisioning
from littlefs import LittleFS
from littlefs.context import UserContext
from streets import interpreter

NODE_ID = bytes.fromhex("a4cf12000010")
KEY = bytes(range(16))
_BAUDRATE = 115200
QUICK = {
    "console_window_ms": 0,
    "wake_interval_ms": 500,
    "service_wake_ms": 500,
    "pings": 3,
    "ping_gap_ms": 40,
    "advert_ms": 50,
    "advert_interval_ms": 20,
    "connect_window_ms": 200,
    "watchdog_ms": 5000,
}


class BareWorld:
    """Answers every ping alike and notes what the board does."""

    def __init__(self, echo_us: int = 6000) -> None:
        self.flight_us = echo_us
        self.levels: dict[int, int] = {}
        self.boots: list[str] = []
        self.adverts: dict[int, set[bytes]] = {}
        self.duty_u16 = 0
        self.luminaire = Luminaire(random.Random(1))
        self.thermistor_uv = 902_000  # 20 C

    def echo_us(self, pin: int) -> int:
        return self.flight_us

    def adc_uv(self, pin: int) -> int:
        if pin in (LOAD_PIN, SUPPLY_PIN):
            return self.luminaire.adc_uv(pin)
        return self.thermistor_uv if pin == 34 else 1_650_000

    def pin_level(self, pin: int) -> int:
        return self.levels.get(pin, 1)

    def pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        self.duty_u16 = duty_u16
        self.luminaire.light_pct = duty_u16 / 655.35

    def booted(self, cause: str) -> None:
        self.boots.append(cause)

    def slept(self, duration_ms: int) -> None:
        """Nothing changes."""

    def power_lost(self) -> None:
        """Nothing changes."""

    def advertised(self, data: bytes) -> None:
        counter = int.from_bytes(data[-8:-4], "little")
        self.adverts.setdefault(counter, set()).add(data)


def bin_board(directory: Path, world: BareWorld, **settings: Any) -> VirtualBoard:
    """Return a provisioned bin node that has never been started."""
    identity = provisioning.pack(0, 0, NODE_ID, KEY, b"test")
    spec = BoardSpec(NODE_ID, directory, identity, QUICK | settings)
    manufacture(spec)
    return VirtualBoard(spec, world, interpreter=interpreter(), air=Air(1))


def lamp_board(directory: Path, world: BareWorld) -> tuple[Bus, Path, VirtualBoard]:
    """Return (bus, the serial port to it, a provisioned lamp node on it)."""
    bus = Bus(_BAUDRATE, seed=1)
    port = bus.attach("client")
    identity = provisioning.pack(1, 1, NODE_ID, KEY, b"test")
    settings = QUICK | {
        "baudrate": _BAUDRATE,
        "silence_ms": 1500,
        "log_interval_ms": 60000,
        "fade_ms": 100,
        "watchdog_ms": 3000,
        "nominal_load_ma": NOMINAL_MA,
        "supply_min_mv": 18000,
        "fault_after_ms": 1000,
        "fault_gap_ms": 1000,
    }
    for name in ("pings", "wake_interval_ms"):
        settings.pop(name)
    spec = BoardSpec(
        NODE_ID, directory, identity, settings, uart=bus.attach("lamp"), driver_enable_pin=4
    )
    manufacture(spec)
    return bus, port, VirtualBoard(spec, world, interpreter=interpreter())


def mounted(spec: BoardSpec) -> tuple[Any, Any]:
    """Return (the file system of a board that is off, the memory that holds its blocks)."""
    image = spec.flash_path.read_bytes()
    context = UserContext(len(image))
    context.buffer = bytearray(image)
    blocks = len(image) // BLOCK_BYTES
    return LittleFS(context=context, block_size=BLOCK_BYTES, block_count=blocks), context
