"""The gateway's errors, each with one meaning and one who deals with it.

Rule: foreign errors are translated where they enter (a link, the store, the uplink); nothing
further in knows bleak, pymodbus, paho or sqlite3.
"""


class GatewayError(Exception):
    """Base of everything that the gateway raises on purpose."""


class ConfigError(GatewayError):
    """The configuration has mistakes; `mistakes` lists all of them as text."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class LinkError(GatewayError):
    """A node, or the way to it, did not answer as it should; the link goes on."""


class LinkDown(GatewayError):
    """A whole link failed (adapter gone, port unplugged); it is restarted with a pause."""


class StoreError(GatewayError):
    """The database could not be written; nothing of that transaction counts."""


class StoreFull(StoreError):
    """The disk has no room; everything is still waiting and is tried again."""


class CopyError(GatewayError):
    """A backup or a restore cannot be made; the database in use is as it was."""


class StoreCorrupt(StoreError):
    """The file is damaged; it must be put aside, which the next start does."""
