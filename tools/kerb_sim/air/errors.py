"""The error replies of BlueZ."""

from __future__ import annotations


class BluezError(Exception):
    """An error reply: `name` without its prefix org.bluez.Error, and the text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


NOT_READY = ("NotReady", "Resource Not Ready")
IN_PROGRESS = ("InProgress", "Operation already in progress")
NOT_CONNECTED = ("NotConnected", "Not Connected")
NOT_SUPPORTED = ("NotSupported", "Operation is not supported")
INVALID_ARGUMENTS = ("InvalidArguments", "Invalid arguments in method call")
