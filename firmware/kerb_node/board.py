"""Which pin is what: the only place with pin numbers.

Rule: an input that wakes the chip lies on an RTC pin (0, 2, 4, 12-15, 25-27, 32-39 on the ESP32);
analogue inputs lie on ADC1, because ADC2 is the radio's. docs/hardware.md has the wiring.
"""

import machine
from kerb_wire.records import NO_BATTERY, NO_TEMPERATURE

from kerb_node.drivers import load_sense
from kerb_node.drivers.battery import charge_pct
from kerb_node.drivers.thermometer import temperature_dc
from kerb_node.drivers.ultrasonic_pulse import UltrasonicPulse

BIN_TRIGGER = 25
BIN_ECHO = 26
BIN_THERMISTOR = 34
BIN_BATTERY = 35
BIN_TILT = 33

LAMP_PWM = 18
LAMP_UART = 1
LAMP_TX = 17
LAMP_RX = 16
LAMP_DE = 4
LAMP_LOAD = 36
LAMP_SUPPLY = 39

_SMALL_UV = 800000

SERVICE = 32  # a reed switch to ground, closed by the technician's magnet


def _contact(number):
    return machine.Pin(number, machine.Pin.IN, machine.Pin.PULL_UP)


def service_on():
    """Tell whether the service switch is closed."""
    return _contact(SERVICE).value() == 0


def _microvolts(number):
    """Return the voltage at an analogue input in microvolts; None: nothing there, or unreadable.

    Each attenuation of the ESP32's ADC has a floor (75 mV at 0 dB, 142 mV at 11 dB) which it also
    says of 0 V (ESP-IDF, esp_adc, line fitting): small voltages are read again without
    attenuation. A chip without calibration in its eFuses may raise instead.
    """
    adc = machine.ADC(machine.Pin(number), atten=machine.ADC.ATTN_11DB)
    try:
        reading_uv = adc.read_uv()
        if reading_uv < _SMALL_UV:
            adc.atten(machine.ADC.ATTN_0DB)
            reading_uv = adc.read_uv() if adc.read_u16() else None
    except OSError:
        return None
    return reading_uv


class BinBoard:
    """The parts of a bin node."""

    def __init__(self):
        self.transducer = UltrasonicPulse(
            machine.Pin(BIN_TRIGGER, machine.Pin.OUT), machine.Pin(BIN_ECHO, machine.Pin.IN)
        )
        self.tilt = _contact(BIN_TILT)

    def temperature_dc(self):
        """Return the air temperature in tenths of a degree, or NO_TEMPERATURE."""
        reading_uv = _microvolts(BIN_THERMISTOR)
        tenths = None if reading_uv is None else temperature_dc(reading_uv)
        return NO_TEMPERATURE if tenths is None else tenths

    def battery_pct(self):
        """Return the battery's charge in per cent, or NO_BATTERY where none is wired."""
        reading_uv = _microvolts(BIN_BATTERY)
        return charge_pct(reading_uv) if (reading_uv or 0) > 500000 else NO_BATTERY

    def tilted(self):
        """Tell whether the bin lies on its side: the switch is closed."""
        return self.tilt.value() == 0

    def wake_pins(self):
        """Return the pins that may end a deep sleep, the most urgent first."""
        # A switch that is closed already would wake the chip at once, again and again.
        return () if self.tilted() else (self.tilt,)


def lamp_pwm(pwm_hz, duty_u16):
    """Return the lamp's output, burning at duty_u16.

    Ports of before MicroPython 1.26 make one pulse of half the period first (micropython#12650).
    """
    return machine.PWM(machine.Pin(LAMP_PWM), freq=pwm_hz, duty_u16=duty_u16)


class LampBoard:
    """The parts of a lamp node."""

    def __init__(self, pwm_hz, duty_u16, baudrate):
        self.pwm = lamp_pwm(pwm_hz, duty_u16)
        self.driver_enable = machine.Pin(LAMP_DE, machine.Pin.OUT, value=0)
        # Modbus RTU: even parity, one stop bit (Modbus over Serial Line V1.02, 2.5.1).
        self.uart = machine.UART(
            LAMP_UART,
            baudrate=baudrate,
            bits=8,
            parity=0,
            stop=1,
            tx=LAMP_TX,
            rx=LAMP_RX,
            rxbuf=512,
            timeout=0,
            timeout_char=2,
        )

    def load_ma(self):
        """Return the lamp's current in milliamperes, or None when the sense wire is broken."""
        return load_sense.load_ma(_microvolts(LAMP_LOAD) or 0)

    def supply_mv(self):
        """Return the voltage of the lamp's supply in millivolts."""
        return load_sense.supply_mv(_microvolts(LAMP_SUPPLY) or 0)
