"""A bench with a virtual board, on which the world is the probe."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
_CALL_S = 30.0


class _Loop:
    """An event loop in a thread, for a synchronous bench."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_CALL_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class VirtualBench:
    """A virtual board; the world is the probe."""

    def __init__(self, directory: Path, role: str) -> None:
        from boards import NODE_ID, BareWorld, bin_board, lamp_board
        from kerb_sim.bus.wire import Bus

        self._node = NODE_ID.hex()
        self._world = BareWorld()
        self._loop = _Loop()
        self._bus: Bus | None = None
        if role == "lamp":
            self._bus, self._port, self._board = lamp_board(directory / "node", self._world)
            self._loop.run(self._start_bus())
        else:
            self._board = self._loop.run(self._make(bin_board, directory / "node"))

    async def _make(self, make: Any, directory: Path) -> Any:
        return make(directory, self._world)

    async def _start_bus(self) -> None:
        if self._bus is not None:
            self._bus.start()

    def power_on(self) -> None:
        self._loop.run(self._board.power_on())

    def power_cut(self) -> None:
        self._loop.run(self._board.power_cut())

    def reset(self) -> None:
        self._loop.run(self._board.press_reset())

    def wait_asleep(self) -> None:
        self._loop.run(self._board.wait_for("sleeping", timeout_s=20))

    def wait_awake(self) -> None:
        self._loop.run(self._board.wait_for("running", timeout_s=20))

    def place_surface(self, distance_mm: float | None, air_c: float = 20.0) -> None:
        from kerb_sim.world.acoustics import speed_m_s
        from kerb_sim.world.surroundings import thermistor_uv

        self._world.flight_us = (
            -1 if distance_mm is None else round(distance_mm * 2000 / speed_m_s(air_c))
        )
        self._world.thermistor_uv = thermistor_uv(air_c)

    def press_tilt(self) -> None:
        self._world.levels[33] = 0
        self._loop.loop.call_soon_threadsafe(self._board.pin_changed, 33)

    def stored(self) -> list[dict[str, Any]]:
        from kerb_check import flash

        image = flash.read(self._board.spec.flash_path, self._node)
        return [
            reading.content | {"seq": reading.identity.seq, "epoch": reading.identity.epoch}
            for reading in image.readings
        ]

    def adverts(self) -> dict[int, set[bytes]]:
        return dict(self._world.adverts)

    def boots(self) -> list[str]:
        return list(self._world.boots)

    def duty_pct(self) -> float:
        return self._world.duty_u16 / 655.35

    def fail_lamp(self) -> None:
        from kerb_sim.world.luminaire import OPEN

        self._world.luminaire.fault = OPEN

    def mend_lamp(self) -> None:
        self._world.luminaire.fault = ""

    def exchange(self, frame: bytes) -> bytes:
        import serial

        with serial.Serial(str(self._port), timeout=0.4) as port:
            port.write(frame)
            answer: bytes = port.read(256)
            return answer

    def freeze(self) -> None:
        self._board.freeze()

    def close(self) -> None:
        self._loop.run(self._board.close())
        if self._bus is not None:
            bus = self._bus

            async def close() -> None:
                bus.close()

            self._loop.run(close())
        self._loop.close()
