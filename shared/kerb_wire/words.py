"""The vocabulary as numbers: kinds, qualities, reasons, events, faults, outcomes, roles.

Rule: a word's index in its tuple is its number on the wire; words are only ever appended.
"""


def code(words: tuple[str, ...], word: str) -> int:
    """Return the number of `word` in the tuple `words`; ValueError if it is not one of them."""
    return words.index(word)


ROLES = ("bin", "lamp", "bay")

# How far a distance can be trusted; docs/wire-format.md says what each asks of the reader.
QUALITIES = (
    "good",
    "uncertain",  # few or scattered echoes: see sigma_mm
    "no_echo",  # nothing came back; there is no distance, and it is not "empty"
    "blind_zone",  # nearer than the transducer can tell: full, or something hangs before it
    "stuck",  # bit-identical over many wakes: a wedged sensor
    "blocked",  # implausibly near and unmoving: dirt or condensation on the transducer
    "soft_target",  # weak, late echoes: foam, textile
    "out_of_range",  # beyond the sensor's rated reach
    "not_measured",  # the service switch was on, or the record reports an event only
)

# Why a lamp burns at this level (TALQ and uCIFI 3416 call it the dimming's cause).
REASONS = ("start", "calendar", "override", "motion", "photocell", "fail_safe", "fault")

# What made a record beside the passing of time.
EVENTS = (
    "periodic",
    "boot",  # power-on, reset or watchdog: the record's first of this boot
    "service",  # the service switch came on: no measuring until it is off again
    "tilt",
    "heat",
    "command",  # a lamp command ended: command_no and its outcome are in the record
    "level",  # the level's reason changed without a command
    "fault",  # a lamp fault came or went
    "crash",  # the application crashed; safe mode follows repeated crashes
)

FAULT_LAMP_FAILURE = 0x01
FAULT_DAY_BURNER = 0x02
FAULT_CYCLING = 0x04
FAULT_OVER_TEMPERATURE = 0x08
FAULT_SUPPLY_LOSS = 0x10
FAULTS_MASK = 0x1F
# The same faults as words: a fault's bit is 1 << its index.
FAULTS = ("lamp_failure", "day_burner", "cycling", "over_temperature", "supply_loss")


def fault_names(bits: int) -> list[str]:
    """Return the words of the faults in `bits`, the lowest bit first."""
    return [word for index, word in enumerate(FAULTS) if bits >> index & 1]


OUTCOMES = ("none", "applied", "expired", "refused", "repeated")

LOSSES = ("overwritten", "unused", "crc")

RESET_CAUSES = ("unknown", "power_on", "hard", "watchdog", "deep_sleep", "soft")

# Flags that ride in a bin's advert and record.
FLAG_CONNECTABLE = 0x01
FLAG_SERVICE = 0x02
FLAG_SAFE_MODE = 0x04
FLAG_LOW_BATTERY = 0x08
FLAGS_MASK = 0x0F
