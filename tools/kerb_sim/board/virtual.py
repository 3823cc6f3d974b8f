"""VirtualBoard: a chip with power, flash, radio and pins, run by its owner like a real one.

Rule: states are off, running, sleeping, prompt (the application returned) and dead (the power
went at a chosen flash write); each change is an event that wait_for() can await.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from kerb_wire.provisioning import address_of

from kerb_sim.air.medium import Air
from kerb_sim.board.console import SerialConsole
from kerb_sim.board.process import ChipProcess
from kerb_sim.board.radio import BoardRadio
from kerb_sim.board.spec import BoardSpec

_TIMER_WAKE = 4
_EXT0_WAKE = 2
_FRIENDLY = "friendly"


class BoardWorld(Protocol):
    """What surrounds one board; every answer is the world's truth at that moment."""

    def echo_us(self, pin: int) -> int:
        """Flight time of one ping, or -1 for none."""

    def adc_uv(self, pin: int) -> int:
        """Voltage at an analogue pin in microvolts."""

    def pin_level(self, pin: int) -> int:
        """Level of a digital input."""

    def pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        """The board drives a PWM output."""

    def booted(self, cause: str) -> None:
        """The chip starts."""

    def slept(self, duration_ms: int) -> None:
        """The chip goes to deep sleep."""

    def power_lost(self) -> None:
        """The power is gone."""

    def advertised(self, data: bytes) -> None:
        """The board puts an advert on the air."""


class VirtualBoard:
    """One board of the street."""

    def __init__(
        self,
        spec: BoardSpec,
        world: BoardWorld,
        *,
        interpreter: Path,
        air: Air | None = None,
        rssi: int = -70,
    ) -> None:
        self.spec = spec
        self.state = "off"
        self.counts: Counter[str] = Counter()
        self.flash_writes = 0
        self._world = world
        self._interpreter = interpreter
        self._chip: ChipProcess | None = None
        self._cut_at = 0
        self._wake_pins: list[list[int]] = []
        self._timer: asyncio.Task[None] | None = None
        self._watchdog_ms = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._console = SerialConsole(spec.console_path) if spec.console else None
        self._prompt = _FRIENDLY
        address = ":".join(f"{octet:02X}" for octet in address_of(spec.node_id))
        self.radio = (
            None if air is None else BoardRadio(address, air, rssi, self._tell, world.advertised)
        )

    # --- what an owner does ---

    @property
    def serial_port(self) -> Path:
        """The path of its USB serial port; only a board with a console has one."""
        if self._console is None:
            raise ValueError(f"{self.spec.name} has no console")
        return self._console.path

    @property
    def serial_port_is_open(self) -> bool:
        """Whether a tool has the serial port open now."""
        return self._console is not None and self._console.is_open()

    async def power_on(self, cause: str = "power_on") -> None:
        """Start the chip as after the given reset cause."""
        await self._start(cause)

    async def power_cut(self) -> None:
        """Take the power away: the process dies, RTC memory is gone."""
        await self._stop("off")
        self.spec.rtc_path.unlink(missing_ok=True)
        self._world.power_lost()

    async def press_reset(self) -> None:
        """Press EN, or pull RTS: to the port a power-on (modmachine.c); RTC memory may survive."""
        await self._stop("off")
        await self._start("power_on")

    async def panic(self) -> None:
        """Let the firmware below MicroPython crash: to the port a hard reset."""
        await self._stop("off")
        await self._start("hard")

    def cut_power_at_flash_write(self, number: int) -> None:
        """Let the power go during the n-th flash operation after the next start (1: the first)."""
        self._cut_at = number

    def pin_changed(self, pin: int) -> None:
        """The world changed an input; it may end a deep sleep."""
        if self.state != "sleeping":
            return
        if any(
            number == pin and self._world.pin_level(pin) == level
            for number, level in self._wake_pins
        ):
            self._later(self._wake(_EXT0_WAKE))

    async def wait_for(self, *states: str, timeout_s: float) -> str:
        """Wait until the board is in one of the states and return it; TimeoutError else."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: self.state in states)
        return self.state

    def freeze(self) -> None:
        """Stop the chip's program where it is, as an endless loop would; the watchdog runs on."""
        if self._chip is not None:
            self._chip.freeze()

    def console(self) -> str:
        """Return what the board has printed so far."""
        try:
            return self.spec.console_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    async def close(self) -> None:
        """End the board for good; its files stay."""
        await self._stop("off")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._console is not None:
            self._console.close()

    # --- the chip's life ---

    async def _start(self, cause: str, wake_reason: int = 0) -> None:
        async with self._lock:
            spec = self.spec
            self._world.booted(cause)
            self.counts[cause] += 1
            environment = {
                "PATH": os.environ.get("PATH", ""),
                "KERB_NODE_ID": spec.name,
                "KERB_CAUSE": cause,
                "KERB_WAKE_REASON": str(wake_reason),
                "KERB_FLASH": str(spec.flash_path.resolve()),
                "KERB_FLASH_BLOCKS": str(spec.flash_blocks),
                "KERB_RTC": str(spec.rtc_path.resolve()),
                "KERB_FIRMWARE": str(spec.firmware),
                "KERB_SHARED": str(spec.shared),
                "KERB_CUT_AT": str(self._cut_at),
            }
            if spec.uart is not None:
                environment["KERB_UART"] = str(spec.uart)
            if spec.driver_enable_pin is not None:
                environment["KERB_DE_PIN"] = str(spec.driver_enable_pin)
            if self._console is not None:
                environment["KERB_PROMPT"] = self._prompt
            self._cut_at = 0
            self._prompt = _FRIENDLY
            self._chip = await ChipProcess.start(
                spec, self._interpreter, environment, self._answer, self._console
            )
            await self._become("running")

    async def _stop(self, state: str, *, watched: bool = False) -> None:
        async with self._lock:
            if self._timer is not None:
                if self._timer is not asyncio.current_task():
                    self._timer.cancel()
                self._timer = None
            if not watched:
                self._feed_watchdog(0)
            if self.radio is not None:
                self.radio.power(False)
            chip, self._chip = self._chip, None
            if chip is not None:
                await chip.kill()
            await self._become(state)

    async def _become(self, state: str) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()

    async def _wake(self, reason: int) -> None:
        if self.state != "sleeping":
            return
        await self._stop("off")
        await self._start("deep_sleep", reason)

    def _runs(self, chip: ChipProcess | None) -> bool:
        """Tell whether it is that run of the chip which goes on; None: it asked while it died."""
        return chip is not None and self._chip is chip

    async def _sleep(self, duration_ms: int, chip: ChipProcess | None) -> None:
        if not self._runs(chip):
            return  # the power went in the meantime: nobody is left to sleep
        await self._stop("sleeping")
        self._world.slept(duration_ms)
        self._timer = self._later(self._alarm(duration_ms / 1000))
        for number, level in self._wake_pins:
            if self._world.pin_level(number) == level:  # ext0 looks at levels, not at edges
                self._later(self._wake(_EXT0_WAKE))

    async def _alarm(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
        await self._wake(_TIMER_WAKE)

    async def _restart(self, cause: str, chip: ChipProcess | None) -> None:
        if not self._runs(chip):
            return
        await self._stop("off")
        await self._start(cause)

    async def _restart_softly(self) -> None:
        """The program starts anew, the chip does not: a started watchdog runs on."""
        await self._stop("off", watched=True)
        await self._start("soft")

    async def _die(self, chip: ChipProcess | None) -> None:
        if not self._runs(chip):
            return
        await self._stop("dead")
        self.spec.rtc_path.unlink(missing_ok=True)
        self._world.power_lost()

    def _later(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- what the firmware asks ---

    def _answer(self, operation: str, arguments: list[Any]) -> Any:
        """Answer one call; Ellipsis: the chip has stopped and gets no reply any more."""
        handler = getattr(self, f"_on_{operation}", None)
        if handler is None:
            raise OSError(38, f"the virtual board has no {operation}")
        return handler(*arguments)

    def _on_echo(self, pin: int) -> int:
        return self._world.echo_us(pin)

    def _on_adc(self, pin: int) -> int:
        return self._world.adc_uv(pin)

    def _on_pin(self, pin: int) -> int:
        return self._world.pin_level(pin)

    def _on_pwm(self, pin: int, hz: int, duty_u16: int) -> None:
        self._world.pwm(pin, hz, duty_u16)

    def _on_nvs_get(self, namespace: str, key: str) -> Any:
        return self._nvs().get(namespace, {}).get(key)

    def _on_nvs_commit(self, namespace: str, staged: dict[str, Any]) -> None:
        everything = self._nvs()
        space = everything.setdefault(namespace, {}) | staged
        everything[namespace] = {key: value for key, value in space.items() if value is not None}
        fresh = self.spec.nvs_path.with_suffix(".new")
        fresh.write_text(json.dumps(everything))
        fresh.rename(self.spec.nvs_path)

    def _nvs(self) -> dict[str, Any]:
        # Erased or unreadable NVS is empty, as nvs_flash_init leaves it after an erase.
        try:
            everything = json.loads(self.spec.nvs_path.read_text())
        except (OSError, ValueError):
            return {}
        return everything if isinstance(everything, dict) else {}

    def _on_uart_flush(self) -> None:
        """The pty has taken everything already: the bus paces it."""

    def _on_prompt(self) -> None:
        self._later(self._become("prompt"))

    def _on_attend(self, on: bool) -> None:
        if self._console is not None:
            self._console.attend(on)

    def _on_interrupt_later(self) -> None:
        if self._console is not None:
            self._console.interrupt_later()

    def _on_sync(self) -> str:
        return "sync"

    def _on_soft_reset(self, prompt: str, writes: int) -> Any:
        self.flash_writes += writes
        self._prompt = prompt
        self._later(self._restart_softly())
        return Ellipsis

    def _on_sleep(self, duration_ms: int, wake_pins: list[list[int]], writes: int) -> Any:
        self.flash_writes += writes
        self._wake_pins = wake_pins
        self._later(self._sleep(duration_ms, self._chip))
        return Ellipsis

    def _on_reset(self, cause: str, writes: int) -> Any:
        self.flash_writes += writes
        self._later(self._restart(cause, self._chip))
        return Ellipsis

    def _on_power_lost(self, writes: int) -> Any:
        self.flash_writes += writes
        self._later(self._die(self._chip))
        return Ellipsis

    def _on_wdt(self, timeout_ms: int) -> None:
        self._feed_watchdog(timeout_ms)

    def _on_feed(self) -> None:
        self._feed_watchdog(self._watchdog_ms)

    def _feed_watchdog(self, timeout_ms: int) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._watchdog_ms = timeout_ms
        if timeout_ms:
            loop = asyncio.get_running_loop()
            self._watchdog = loop.call_later(
                timeout_ms / 1000, lambda: self._later(self._restart("watchdog", self._chip))
            )

    def _tell(self, name: str, connection: int, detail: Any) -> None:
        if self._chip is not None and not self._chip.event("ble", name, connection, detail):
            self.counts["events lost"] += 1

    def _radio(self) -> BoardRadio:
        if self.radio is None:
            raise OSError(19, "this board is not on any air")
        return self.radio

    def _on_ble_active(self, on: bool) -> bool:
        """Switch the radio; False: that hangs the chip."""
        if not on and self._radio().linked:
            return False
        self._radio().power(on)
        return True

    def _on_ble_mtu(self, mtu_bytes: int) -> None:
        self._radio().mtu = mtu_bytes

    def _on_ble_services(self, table: list[Any]) -> None:
        self._radio().register(table)

    def _on_ble_advertise(self, interval_us: int, data: str, connectable: bool) -> None:
        self._radio().advertise(interval_us, bytes.fromhex(data), connectable)

    def _on_ble_quiet(self) -> None:
        self._radio().quiet()

    def _on_ble_notify(self, connection: int, handle: int, data: str) -> None:
        self._radio().notify(connection, handle, bytes.fromhex(data))

    def _on_ble_disconnect(self, connection: int) -> bool:
        return self._radio().disconnect(connection)
