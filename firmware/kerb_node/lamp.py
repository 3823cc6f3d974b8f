"""The lamp node: burns at the level that its rules set, says why, and answers on its bus.

Rule: a command's outcome is in the log, on flash, before any register shows it; a command number
is acted on once, also across a reset.
"""

import asyncio
import time

from kerb_wire import records
from kerb_wire.words import EVENTS, OUTCOMES, code

from kerb_node import board, lampstate, sleep
from kerb_node.drivers.lamp_pwm import LampPwm
from kerb_node.lampregisters import LampRegisters
from kerb_node.light.announce import Announcer
from kerb_node.light.arbiter import OVERRIDE, Arbiter
from kerb_node.light.fade import Fade
from kerb_node.light.faults import Faults
from kerb_node.light.perceptual import duty_u16
from kerb_node.links.rs485 import Rs485
from kerb_node.modbus import ModbusServer
from kerb_node.sequence import Sequence
from kerb_node.uptime import Uptime

_PERIODIC = code(EVENTS, "periodic")
_BOOT = code(EVENTS, "boot")
_SERVICE = code(EVENTS, "service")
_COMMAND = code(EVENTS, "command")
_LEVEL = code(EVENTS, "level")
_FAULT = code(EVENTS, "fault")

_NONE = code(OUTCOMES, "none")
_APPLIED = code(OUTCOMES, "applied")
_EXPIRED = code(OUTCOMES, "expired")
_REFUSED = code(OUTCOMES, "refused")

_FADE_STEP_MS = 20
_RULES_MS = 200
_KEEP_MS = 5000
_GOOD_RUN_MS = 600000  # crashes further apart than that are not counted as in a row
_BURN_NVS_S = 3600  # flash wear: burn hours reach NVS once an hour, RTC memory every few seconds


class LampNode:
    """State of a lamp; `run()` goes on for ever."""

    def __init__(self, settings, store, identity, epoch, log, supervisor):
        self._settings = settings
        self._store = store
        self._identity = identity
        self._log = log
        self._supervisor = supervisor
        self.epoch = epoch
        self.acked_seq = 0
        self._sequence = Sequence(store)
        self._uptime = Uptime(time.ticks_ms, time.ticks_diff)
        self.boot_no = (store.get_int("boot_no", 0) + 1) & 0xFFFF
        store.set_int("boot_no", self.boot_no)
        self._arbiter = Arbiter(settings.fail_safe_level_pct, settings.silence_ms)
        self._target_pct = self._restore()
        duty = duty_u16(self._target_pct)
        self._board = hardware = board.LampBoard(settings.pwm_hz, duty, settings.baudrate)
        self._lamp = LampPwm(hardware.pwm, self._target_pct)
        self._fade = None
        self._fade_start_ms = 0
        self.reason = self._arbiter.decide(self._uptime.now_ms())[1]
        self.command_no = 0
        self.command_outcome = _NONE
        known_faults = self._recover()
        self._faults = Faults(settings, known_faults, self._uptime.now_ms())
        self._announcer = Announcer(settings.fault_gap_ms, known_faults)
        self._server = ModbusServer(identity.unit, LampRegisters(self, log))
        self._bus = Rs485(hardware.uart, hardware.driver_enable, settings.baudrate, self._server)

    def _restore(self):
        """Return the level from before a reset, or the fail-safe level after a loss of power."""
        kept = None
        if self._supervisor.cause in ("watchdog", "soft", "hard", "deep_sleep"):
            kept = lampstate.unpack(sleep.recall())
        if kept is None:
            self._burn_s = self._store.get_int("burn_s", 0)
            self.switch_count = self._store.get_int("switches", 0)
            return self._settings.fail_safe_level_pct
        self._burn_s = kept.burn_s
        self.switch_count = kept.switch_count
        if kept.override:
            self._arbiter.override(kept.override_pct, 1000 * kept.override_left_s)
        return kept.level_pct

    def _recover(self):
        """Take the newest command and the burn time from the log, as far back as it goes.

        Each boot may skip a block of numbers, so no count of numbers is surely far enough.
        Returns the faults of the newest record: a lamp that is known to have failed is not
        reported anew each evening, when its circuit is switched on.
        """
        newest = command = None
        faults = 0
        first_seq = max(1, self._log.first_seq())
        for record in self._log.read(self.epoch, first_seq, self._sequence.last_seq):
            self._supervisor.feed()
            if record[1] == records.LAMP:
                newest = record
                command = record if records.command_no_of(record) else command
        if newest is not None:
            row = records.unpack(newest)
            self._burn_s = max(self._burn_s, 60 * row.burn_min)
            faults = row.faults
        self._burn_stored_s = self._burn_s
        if command is not None:
            row = records.unpack(command)
            self.command_no, self.command_outcome = row.command_no, records.lamp_outcome(row)
        return faults

    # --- what the registers show ---

    @property
    def node_id(self):
        return self._identity.node_id

    @property
    def level_pct(self):
        return self._lamp.level_pct

    @property
    def target_level_pct(self):
        return self._target_pct

    @property
    def faults(self):
        return self._faults.bits

    @property
    def last_seq(self):
        return self._sequence.last_seq

    @property
    def bad_frames(self):
        return self._server.bad_frames

    def uptime_s(self):
        return self._uptime.now_s()

    def burn_min(self):
        return self._burn_s // 60

    def override_left_s(self):
        return self._arbiter.left_s(self._uptime.now_ms())

    def reset_cause(self):
        return self._supervisor.cause_code()

    # --- what the registers ask ---

    def command(self, number, level_pct, fade_ms, hold_s, life_s):
        """Act on a command that this lamp has not ended yet; its outcome is logged first."""
        if number == self.command_no:
            return
        outcome = self._judge(level_pct, hold_s, life_s)
        if outcome == _APPLIED:
            self._write(_COMMAND, outcome, number, level_pct, OVERRIDE)
            self._arbiter.override(level_pct, self._uptime.now_ms() + 1000 * hold_s)
            self._follow(fade_ms)
            self._retain()
        else:
            self._write(_COMMAND, outcome, number)
        self.command_no = number
        self.command_outcome = outcome

    def _judge(self, level_pct, hold_s, life_s):
        if not 0 <= level_pct <= 100 or not 1 <= hold_s <= 604800:
            return _REFUSED
        if 0 < level_pct < self._settings.min_level_pct:
            return _REFUSED  # below it the lamp would flicker: off is 0
        return _EXPIRED if life_s == 0 else _APPLIED

    def acknowledge(self, epoch, seq):
        """The gateway has everything up to `seq`."""
        if epoch == self.epoch and self.acked_seq < seq <= self.last_seq:
            self.acked_seq = seq

    # --- the lamp's life ---

    def run(self):
        """Go on for ever."""
        asyncio.run(self._main())

    async def _main(self):
        self._write(_BOOT)
        # A part that fails ends them all: the crash is counted and the lamp starts anew.
        await asyncio.gather(
            self._serve(), self._keep_rules(), self._keep_log(), self._keep_state()
        )

    async def _serve(self):
        """Answer the bus."""
        while True:
            frame = await self._bus.receive()
            answer = self._server.answer(frame)
            if answer is not None:
                self._arbiter.heard(self._uptime.now_ms())
                self._bus.send(answer)

    async def _keep_rules(self):
        """Follow what the rules say; fade in small steps."""
        while True:
            self._supervisor.feed()
            before = self.reason
            self._follow(self._settings.fade_ms)
            if self.reason != before:
                self._write(_LEVEL)
            self._step()
            if self._fade is None and self._faults.senses:
                self._watch_load()
            await asyncio.sleep_ms(_FADE_STEP_MS if self._fade else _RULES_MS)

    def _follow(self, fade_ms):
        level_pct, self.reason = self._arbiter.decide(self._uptime.now_ms())
        if level_pct != self._target_pct:
            if (level_pct == 0) != (self._target_pct == 0):
                self.switch_count += 1
            self._target_pct = level_pct
            self._fade = Fade(self._lamp.level_pct, level_pct, fade_ms)
            self._fade_start_ms = self._uptime.now_ms()

    def _step(self):
        if self._fade is None:
            return
        passed_ms = self._uptime.now_ms() - self._fade_start_ms
        self._lamp.set(self._fade.level_pct(passed_ms))
        if self._fade.done(passed_ms):
            self._fade = None

    def _watch_load(self):
        """Judge the lamp's faults; a change that is worth it gets a record, but not in service."""
        now_ms = self._uptime.now_ms()
        self._faults.judge(
            now_ms,
            duty_u16(self._lamp.level_pct),
            self._board.load_ma(),
            self._board.supply_mv(),
        )
        if self._announcer.due(self.faults, now_ms) and not board.service_on():
            self._write(_FAULT)
            self._announcer.said(self.faults, now_ms)

    async def _keep_log(self):
        """Write a record every interval; while the service switch is on, only its coming."""
        in_service = False
        while True:
            await asyncio.sleep_ms(self._settings.log_interval_ms)
            service = board.service_on()
            if not service:
                self._write(_PERIODIC)
            elif not in_service:
                self._write(_SERVICE)
            in_service = service

    async def _keep_state(self):
        """Count burn time and keep what a reset must not forget."""
        last_ms = self._uptime.now_ms()
        rest_ms = 0
        while True:
            self._retain()
            await asyncio.sleep_ms(_KEEP_MS)
            now_ms = self._uptime.now_ms()
            if now_ms >= _GOOD_RUN_MS:
                self._supervisor.leave_safe_mode()
            if self._lamp.level_pct:
                rest_ms += now_ms - last_ms
                self._burn_s += rest_ms // 1000
                rest_ms %= 1000
            last_ms = now_ms
            if self._burn_s - self._burn_stored_s >= _BURN_NVS_S:
                self._burn_stored_s = self._burn_s
                self._store.set_int("burn_s", self._burn_s & 0x7FFFFFFF)
                self._store.set_int("switches", self.switch_count & 0x7FFFFFFF)

    def _retain(self):
        left_s = self.override_left_s()
        sleep.retain(
            lampstate.pack(
                self._target_pct, self._target_pct, left_s, self._burn_s, self.switch_count
            )
        )

    def _write(self, event, outcome=_NONE, command_no=0, level_pct=None, reason=None):
        """Append a record; level_pct, reason None: what the lamp is set to, and why."""
        self._log.append(
            records.pack_lamp(
                self.boot_no,
                self._sequence.take(),
                self._uptime.now_s(),
                self._target_pct if level_pct is None else level_pct,
                self.reason if reason is None else reason,
                self.faults,
                event,
                outcome,
                self.burn_min(),
                command_no,
            )
        )
        self._retain()
