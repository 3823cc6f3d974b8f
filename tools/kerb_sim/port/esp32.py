"""Stand-in for the port's esp32 module: NVS and the sources that end a deep sleep.

Rule: as strict as the port. NVS names have at most 15 characters (ESP-IDF, "Non-volatile
Storage": keys), nothing is durable before commit(), only RTC pins wake the chip.
"""

import kerb_flash
import kerb_host

WAKEUP_ALL_LOW = False
WAKEUP_ANY_HIGH = True

_NAME_MAX = 15
_NOT_FOUND = -4354  # ESP_ERR_NVS_NOT_FOUND
_INVALID_NAME = -4358  # ESP_ERR_NVS_INVALID_NAME
_RTC_PINS = (0, 2, 4, 12, 13, 14, 15, 25, 26, 27, 32, 33, 34, 35, 36, 37, 38, 39)

wake_pins = []


class NVS:
    """Non-volatile storage of one namespace."""

    def __init__(self, namespace):
        if len(namespace) > _NAME_MAX:
            raise OSError(_INVALID_NAME)
        self._namespace = namespace
        self._staged = {}

    def _set(self, key, value):
        if len(key) > _NAME_MAX:
            raise OSError(_INVALID_NAME)
        self._staged[key] = value

    def _get(self, key, kind):
        if key in self._staged:
            value = self._staged[key]
        else:
            value = kerb_host.call("nvs_get", self._namespace, key)
        if value is None or not isinstance(value, kind):
            raise OSError(_NOT_FOUND)
        return value

    def set_i32(self, key, value):
        if not -(2**31) <= value < 2**31:
            raise OverflowError("value does not fit 32 bits")
        self._set(key, value)

    def get_i32(self, key):
        return self._get(key, int)

    def set_blob(self, key, value):
        self._set(key, bytes(value).hex())

    def get_blob(self, key, buffer):
        value = bytes.fromhex(self._get(key, str))
        if len(value) > len(buffer):
            raise OSError(-4364)  # ESP_ERR_NVS_INVALID_LENGTH
        buffer[: len(value)] = value
        return len(value)

    def erase_key(self, key):
        self._get(key, (int, str))
        self._set(key, None)

    def commit(self):
        if kerb_flash.count():
            # An entry is valid only once its state bits are written: a torn one is as none.
            kerb_host.halt("power_lost", kerb_flash.operations)
        kerb_host.call("nvs_commit", self._namespace, self._staged)
        self._staged = {}


def wake_on_ext0(pin=None, level=None):
    """End a deep sleep when one RTC pin has this level."""
    if pin is None:
        return
    if pin.number not in _RTC_PINS:
        raise ValueError("invalid pin")
    wake_pins.append([pin.number, 1 if level else 0])


def wake_on_ext1(pins=None, level=None):
    """End a deep sleep when all of the RTC pins are low, or any is high."""
    for pin in pins or ():
        if pin.number not in _RTC_PINS:
            raise ValueError("invalid pin")
    if pins and (level or len(pins) == 1):
        wake_pins.extend([pin.number, 1 if level else 0] for pin in pins)


HEAP_DATA = 4  # MALLOC_CAP_8BIT
_HEAP_TOTAL, _HEAP_FREE, _HEAP_LARGEST = 113792, 90000, 65524  # of an ESP32_GENERIC 1.24 at rest


def idf_heap_info(capabilities):
    """Return [(total, free, largest free block, least free so far)] of the heaps below us."""
    return [(_HEAP_TOTAL, _HEAP_FREE, _HEAP_LARGEST, _HEAP_FREE)]
