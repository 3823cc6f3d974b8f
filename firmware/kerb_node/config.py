"""The node's settings: product defaults, and what /settings.json changes of them.

Rule: a setting that is unknown, of the wrong type or out of bounds is reported and its default
used; a bad file never keeps a node from measuring.
"""

import json

from kerb_wire.settings import SETTINGS, complaint, log_complaint

PATH = "/settings.json"
_FILE_MAX_BYTES = 4096  # all settings at once take less than half of it


class Settings:
    """The settings as attributes; `complaints` lists what of the file was not taken."""

    def __init__(self, text=None):
        """text: the content of settings.json (str or bytes), or None for the defaults."""
        self.complaints = []
        for name in SETTINGS:
            setattr(self, name, SETTINGS[name][0])
        if text is not None:
            self._apply(text)

    def _apply(self, text):
        if len(text) > _FILE_MAX_BYTES:
            self.complaints.append("settings.json is too long: defaults used")
            return
        try:
            given = json.loads(text)
        except (ValueError, MemoryError, RuntimeError) as error:  # deep nesting: heap, or stack
            self.complaints.append(f"settings.json is not JSON ({error}): defaults used")
            return
        if not isinstance(given, dict):
            self.complaints.append("settings.json is not an object: defaults used")
            return
        for name in given:
            self._set(name, given[name])
        self._bound_log()

    def _set(self, name, value):
        wrong = complaint(name, value)
        if wrong is None:
            setattr(self, name, value)
        else:
            self.complaints.append(wrong)

    def _bound_log(self):
        wrong = log_complaint(self.log_segments, self.log_rows)
        if wrong is not None:
            self.log_segments = SETTINGS["log_segments"][0]
            self.complaints.append(wrong)


def load(path):
    """Return the Settings of a file; without the file, the defaults."""
    try:
        # Bytes: a byte that is no UTF-8 is the parser's to refuse, not the file's to die of.
        with open(path, "rb") as file:
            return Settings(file.read(_FILE_MAX_BYTES + 1))
    except OSError:
        return Settings()
