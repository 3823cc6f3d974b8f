"""The bin node, one wake long: measure, store, advertise, let a gateway in, sleep.

Rule: the record is on flash before its advert is on the air; an advert of the same number always
has the same bytes.
"""

import gc
import os
import time

from kerb_wire import advert, bthome, keys, provisioning, records
from kerb_wire.words import (
    EVENTS,
    FLAG_CONNECTABLE,
    FLAG_LOW_BATTERY,
    FLAG_SAFE_MODE,
    FLAG_SERVICE,
    QUALITIES,
    code,
)

from kerb_node import retained, sleep, visit
from kerb_node.dialogue import Dialogue
from kerb_node.fill.estimate import estimate
from kerb_node.fill.sound import NOMINAL_TEMPERATURE_DC
from kerb_node.identity import new_ecb
from kerb_node.links.ble import Radio
from kerb_node.sequence import Sequence
from kerb_node.uptime import Uptime, slept_ms

_PERIODIC = code(EVENTS, "periodic")
_BOOT = code(EVENTS, "boot")
_SERVICE = code(EVENTS, "service")
_TILT = code(EVENTS, "tilt")
_CRASH = code(EVENTS, "crash")
_NOT_MEASURED = code(QUALITIES, "not_measured")

_LOW_BATTERY_PCT = 15
_GREETING_WAKES = 16  # after a boot the door stays open that many wakes, unless a gateway came
_SHORTEST_SLEEP_MS = 200
_TILT_PAUSE_MS = 60000  # the longest that a tilt contact is not armed after an event
_STRANGERS = 2  # whose visits a wake's door outlasts: bounds what strangers cost of the battery


class BinNode:
    """State of one wake; `run()` ends in deep sleep."""

    def __init__(self, board, settings, store, identity, epoch, log, supervisor, service):
        self._board = board
        self._settings = settings
        self._identity = identity
        self._epoch = epoch
        self._log = log
        self._supervisor = supervisor
        self._service = service
        self._started_ms = time.ticks_ms()
        kept = retained.unpack(sleep.recall()) if supervisor.cause == "deep_sleep" else None
        # Good for this wake only: if it is broken off, its numbers may have been used already.
        sleep.retain(b"")
        if kept is not None and kept.epoch == epoch:
            self._resume(store, kept)
        else:
            self._begin(store)

    def _begin(self, store):
        """After anything but a deep sleep: a new boot, and numbers behind the reserved block."""
        self._boot_no = (store.get_int("boot_no", 0) + 1) & 0xFFFF
        store.set_int("boot_no", self._boot_no)
        self._sequence = Sequence(store)
        self._uptime = Uptime(time.ticks_ms, time.ticks_diff)
        self._acked_seq = 0
        self._wakes = 0
        self._greeted = 0
        self._same_count = 0
        self._last_echo_us = 0
        self._was_service = 0
        self._was_tilted = 0
        self._record = None

    def _resume(self, store, kept):
        before_ms = kept.clock_s * 1000 + kept.clock_rest_ms
        lived_ms = kept.uptime_s * 1000 + kept.uptime_rest_ms
        lived_ms += slept_ms(kept.planned_ms, before_ms, sleep.clock_ms() % (2**32 * 1000))
        self._boot_no = kept.boot_no
        self._sequence = Sequence(store, kept.next_seq, kept.block_end)
        self._uptime = Uptime(time.ticks_ms, time.ticks_diff, lived_ms)
        self._acked_seq = kept.acked_seq
        self._wakes = (kept.wakes + 1) & 0xFFFFFFFF
        self._greeted = kept.greeted
        self._same_count = kept.same_count
        self._last_echo_us = kept.last_echo_us
        self._was_service = kept.service
        self._was_tilted = kept.tilted
        self._record = kept.record

    def run(self):
        """One wake, as a story."""
        event = self._event()
        if event is not None:
            record = self._make_record(event)
            self._log.append(record)
            self._record = record
        self._supervisor.feed()
        self._announce(records.unpack(self._record))
        self._supervisor.good()
        self._sleep()

    def _event(self):
        """Return why this wake makes a record, or None: service goes on, nothing new to say."""
        if self._supervisor.safe_mode:
            return _CRASH
        if self._service:
            return None if self._was_service and self._record else _SERVICE
        if self._record is None:
            return _BOOT
        if not self._was_tilted and (self._board.tilted() or sleep.woken_by_pin()):
            return _TILT
        return _PERIODIC

    def _make_record(self, event):
        distance_mm, sigma_mm, quality = records.NO_DISTANCE, 0, _NOT_MEASURED
        pings = echoes = 0
        temperature_dc, battery_pct = records.NO_TEMPERATURE, records.NO_BATTERY
        if event != _CRASH:  # in safe mode no sensor is touched: it may be what crashed
            temperature_dc = self._board.temperature_dc()
            battery_pct = self._board.battery_pct()
        if event not in (_SERVICE, _CRASH):
            pings = self._settings.pings
            distance_mm, sigma_mm, quality, echoes = self._measure(temperature_dc)
        backlog = min(255, self._sequence.last_seq - self._acked_seq)
        uptime_s = self._uptime.now_s()
        return records.pack_fill(
            self._boot_no,
            self._sequence.take(),
            uptime_s,
            distance_mm,
            sigma_mm,
            quality,
            temperature_dc,
            battery_pct,
            event,
            pings,
            echoes,
            self._flags(event, battery_pct, backlog),
            backlog,
        )

    def _measure(self, temperature_dc):
        settings = self._settings
        echoes_us = self._board.transducer.burst(settings.pings, settings.ping_gap_ms)
        heard = [echo for echo in echoes_us if echo > 0]
        shortest_us = min(heard) if heard else 0
        same = bool(heard) and shortest_us == max(heard) == self._last_echo_us
        self._same_count = min(255, self._same_count + 1) if same else 0
        self._last_echo_us = shortest_us
        air_dc = (
            NOMINAL_TEMPERATURE_DC if temperature_dc == records.NO_TEMPERATURE else temperature_dc
        )
        return estimate(
            echoes_us, air_dc, settings.blind_zone_mm, settings.reach_mm, self._same_count
        )

    def _flags(self, event, battery_pct, backlog):
        flags = 0
        if self._opens(event, backlog):
            flags |= FLAG_CONNECTABLE
        if self._service:
            flags |= FLAG_SERVICE
        if self._supervisor.safe_mode:
            flags |= FLAG_SAFE_MODE
        if battery_pct <= _LOW_BATTERY_PCT:
            flags |= FLAG_LOW_BATTERY
        return flags

    def _opens(self, event, backlog):
        """Tell whether this wake opens its door to a gateway."""
        settings = self._settings
        return (
            event != _PERIODIC
            or (not self._greeted and self._wakes < _GREETING_WAKES)
            or self._wakes % settings.connectable_every == 0
            or backlog >= settings.backlog_connect
        )

    def _announce(self, row):
        if self._identity.root_key is None:
            return  # the key is lost: store on, until a technician brings a new one
        settings = self._settings
        key = keys.advert_key(new_ecb, self._identity.root_key, self._epoch)
        address = provisioning.address_of(self._identity.node_id)
        objects = advert.objects_of(row, self._epoch)
        data = bthome.advertising_data(
            bthome.seal(new_ecb(key), address, row.seq, objects, triggered=row.event != _PERIODIC)
        )
        gc.collect()  # the radio's stack takes its memory from what the heap leaves
        radio = Radio()
        if row.flags & FLAG_CONNECTABLE:
            radio.serve()
            self._receive(radio, data)
        else:
            radio.advertise(data, settings.advert_interval_ms, False)
            self._supervisor.pause(settings.advert_ms)
        radio.off()

    def _receive(self, radio, data):
        """Hold the door open for connect_window_ms; some strangers do not close it."""
        settings = self._settings
        radio.advertise(data, settings.advert_interval_ms, True)
        start = time.ticks_ms()
        strangers = strangers_ms = 0
        while time.ticks_diff(time.ticks_ms(), start) - strangers_ms < settings.connect_window_ms:
            self._supervisor.feed()
            if radio.connected:
                came = time.ticks_ms()
                dialogue = self._dialogue()
                visit.serve(radio, dialogue, self._supervisor.feed, time)
                if dialogue.proven:
                    self._greeted = 1
                    if self._supervisor.safe_mode:
                        self._supervisor.leave_safe_mode()
                    return
                if strangers < _STRANGERS:
                    strangers += 1
                    strangers_ms += time.ticks_diff(time.ticks_ms(), came)
                radio.advertise(data, settings.advert_interval_ms, True)
            time.sleep_ms(visit.POLL_MS)

    def _dialogue(self):
        return Dialogue(
            new_ecb,
            self._identity.root_key,
            # The radio is on, so the chip's generator is fed by its noise (ESP-IDF, "Random
            # Number Generation"): good enough for nonces, where the root key must not come from.
            os.urandom,
            self._describe,
            self._log,
            self._acknowledge,
        )

    def _describe(self, nonce):
        """Return HelloNode's fields without the tag."""
        identity = self._identity
        first_seq = self._log.first_seq() or self._sequence.next_seq
        return (
            1,
            identity.role,
            identity.node_id,
            self._epoch,
            nonce,
            self._boot_no,
            self._uptime.now_s(),
            first_seq,
            self._sequence.last_seq,
            self._acked_seq,
        )

    def _acknowledge(self, epoch, seq):
        if epoch == self._epoch and self._acked_seq < seq <= self._sequence.last_seq:
            self._acked_seq = seq

    def _sleep(self):
        settings = self._settings
        interval_ms = settings.wake_interval_ms
        if self._service:
            interval_ms = settings.service_wake_ms
        if self._supervisor.safe_mode:
            interval_ms = settings.safe_mode_wake_ms
        wake_pins = self._board.wake_pins()
        tilted = 0 if wake_pins else 1
        if wake_pins and records.unpack(self._record).event == _TILT:
            # A contact that rattles would wake, measure and open the door without end. What it
            # says meanwhile is not lost if it stays: the next wake looks.
            wake_pins = ()
            interval_ms = min(interval_ms, _TILT_PAUSE_MS)
        awake_ms = time.ticks_diff(time.ticks_ms(), self._started_ms)
        planned_ms = max(_SHORTEST_SLEEP_MS, interval_ms - awake_ms)
        lived_ms = self._uptime.now_ms()
        clock_ms = sleep.clock_ms() % (2**32 * 1000)
        sleep.retain(
            retained.pack(
                boot_no=self._boot_no,
                epoch=self._epoch,
                next_seq=self._sequence.next_seq,
                block_end=self._sequence.block_end,
                acked_seq=self._acked_seq,
                uptime_s=lived_ms // 1000,
                uptime_rest_ms=lived_ms % 1000,
                clock_s=clock_ms // 1000,
                clock_rest_ms=clock_ms % 1000,
                planned_ms=planned_ms,
                wakes=self._wakes,
                greeted=self._greeted,
                same_count=self._same_count,
                last_echo_us=self._last_echo_us,
                service=1 if self._service else 0,
                tilted=tilted,
                record=self._record,
            )
        )
        sleep.until(planned_ms, wake_pins)
