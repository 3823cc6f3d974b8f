"""Stand-in for the port's machine module: pins, ADC, PWM, UART, RTC memory, watchdog, resets.

Rule: as strict as the port where firmware could go wrong: pins 34 to 39 are inputs only, RTC
memory holds 2,048 bytes, a started watchdog cannot be stopped, deepsleep() does not return.
"""

import io
import os
import select
import time

import esp32
import kerb_flash
import kerb_host

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
PIN_WAKE, EXT0_WAKE, EXT1_WAKE, TIMER_WAKE = 2, 2, 3, 4

_INPUT_ONLY = (34, 35, 36, 37, 38, 39)
_NO_SUCH_PIN = (20, 24, 28, 29, 30, 31)
_FLASH_PINS = (6, 7, 8, 9, 10, 11)
_ADC1_PINS = (32, 33, 34, 35, 36, 37, 38, 39)
_RTC_MEMORY_BYTES = 2048

_CAUSES = {"power_on": 1, "hard": 2, "watchdog": 3, "deep_sleep": 4, "soft": 5}


def unique_id():
    return bytes.fromhex(os.getenv("KERB_NODE_ID"))


def reset_cause():
    return _CAUSES[os.getenv("KERB_CAUSE")]


def wake_reason():
    return int(os.getenv("KERB_WAKE_REASON") or 0)


def freq(value=None):
    return 160000000


def idle():
    time.sleep_ms(1)


def reset():
    kerb_host.halt("reset", "hard", kerb_flash.operations)


def soft_reset():
    kerb_host.halt("reset", "soft", kerb_flash.operations)


def deepsleep(time_ms=0):
    kerb_host.halt("sleep", time_ms, esp32.wake_pins, kerb_flash.operations)


class Pin:
    """A GPIO; inputs are asked of the world, outputs are remembered."""

    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING = 1, 2

    _levels = {}

    def __init__(self, id, mode=-1, pull=-1, value=None):
        if not 0 <= id <= 39 or id in _NO_SUCH_PIN or id in _FLASH_PINS:
            raise ValueError("invalid pin")
        if mode == Pin.OUT and id in _INPUT_ONLY:
            raise ValueError("pin can only be input")
        self.number = id
        self._mode = mode
        if value is not None:
            self.value(value)

    def init(self, mode=-1, pull=-1, value=None):
        self.__init__(self.number, mode, pull, value)

    def value(self, level=None):
        if level is not None:
            Pin._levels[self.number] = 1 if level else 0
            return None
        if self._mode == Pin.OUT:
            return Pin._levels.get(self.number, 0)
        return kerb_host.call("pin", self.number)

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)


def time_pulse_us(pin, pulse_level, timeout_us=1000000):
    """Measure a pulse; -2: it never began, -1: it never ended within the time."""
    echo_us = kerb_host.call("echo", pin.number)
    if echo_us < 0 or echo_us > timeout_us:
        time.sleep_us(timeout_us)
        return -2 if echo_us == -2 else -1
    time.sleep_us(echo_us)
    return echo_us


class ADC:
    """An analogue input; ADC2 is the radio's on the ESP32, so only ADC1 is offered."""

    ATTN_0DB, ATTN_2_5DB, ATTN_6DB, ATTN_11DB = 0, 1, 2, 3

    def __init__(self, pin, atten=0):
        number = pin.number if isinstance(pin, Pin) else pin
        if number not in _ADC1_PINS:
            raise ValueError("invalid pin")
        self._number = number
        self.atten(atten)

    def atten(self, atten):
        # Upper end of the range in microvolts, ESP32 datasheet, table "ADC characteristics"; the
        # floors are what the characterisation says of a raw 0 (ESP-IDF, esp_adc, line fitting).
        self._limit_uv = (950000, 1250000, 1750000, 2450000)[atten]
        self._floor_uv = (75000, 78000, 107000, 142000)[atten]

    def read_uv(self):
        return max(self._floor_uv, min(kerb_host.call("adc", self._number), self._limit_uv))

    def read_u16(self):
        span_uv = self._limit_uv - self._floor_uv
        above_uv = min(kerb_host.call("adc", self._number), self._limit_uv) - self._floor_uv
        return max(0, above_uv) * 65535 // span_uv


class PWM:
    """A LEDC channel."""

    def __init__(self, pin, freq=5000, duty_u16=None, invert=0):
        self._number = pin.number
        self._freq = freq
        self._duty = 0
        if duty_u16 is not None:
            self.duty_u16(duty_u16)

    def freq(self, value=None):
        if value is None:
            return self._freq
        self._freq = value

    def duty_u16(self, value=None):
        if value is None:
            return self._duty
        if not 0 <= value <= 65535:
            raise ValueError("duty_u16 must be from 0 to 65535")
        self._duty = value
        kerb_host.call("pwm", self._number, self._freq, value)

    def deinit(self):
        self.duty_u16(0)


class UART(io.IOBase):
    """A serial port on a pty; bytes written while DE is low are lost, as on a real transceiver."""

    IRQ_RXIDLE = 0x1000

    def __init__(
        self,
        id,
        baudrate=115200,
        bits=8,
        parity=None,
        stop=1,
        tx=None,
        rx=None,
        rxbuf=256,
        timeout=0,
        timeout_char=0,
    ):
        if not 0 <= id <= 2:
            raise ValueError(f"UART({id}) does not exist")
        self._file = _uart_file
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)
        self._de = int(os.getenv("KERB_DE_PIN") or -1)

    def any(self):
        return 1 if self._poll.poll(0) else 0

    def read(self, size=-1):
        data = bytearray()
        while (size < 0 or len(data) < size) and self._poll.poll(0):
            octet = self._file.read(1)
            if not octet:
                break
            data.extend(octet)
        return bytes(data) if data else None

    def readinto(self, buffer, size=-1):
        data = self.read(len(buffer) if size < 0 else size)
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    def write(self, data):
        if self._de < 0 or Pin._levels.get(self._de):
            self._file.write(data)
        return len(data)

    def flush(self):
        kerb_host.call("uart_flush")

    def ioctl(self, request, argument):
        if request == 10:  # MP_STREAM_GET_FILENO: the poll sleeps in the kernel
            return self._file.fileno()
        return 0


class RTC:
    """Only its memory: kept over deep sleep and resets, lost with the power."""

    def memory(self, data=None):
        path = os.getenv("KERB_RTC")
        if data is None:
            try:
                with kerb_host.files.open(path, "rb") as file:
                    return file.read()
            except OSError:
                return b""
        if len(data) > _RTC_MEMORY_BYTES:
            raise ValueError("buffer too long")
        with kerb_host.files.open(path, "wb") as file:
            file.write(data)


class WDT:
    """The task watchdog; the host ends a board that does not feed it in time."""

    def __init__(self, id=0, timeout=5000):
        self._pause_ms = timeout // 10
        self._fed = time.ticks_ms()
        kerb_host.call("wdt", timeout)

    def feed(self):
        now = time.ticks_ms()
        if time.ticks_diff(now, self._fed) >= self._pause_ms:
            self._fed = now
            kerb_host.call("feed")


_uart_path = os.getenv("KERB_UART")
_uart_file = kerb_host.files.open(_uart_path, "r+b") if _uart_path else None
