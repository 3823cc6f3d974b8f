"""Advertisement monitors: how a client scans passively, and what it is told.

Rule: a client registers a root, and only the monitors that it exports *afterwards* below that
root count; each is activated, or released when it asks for nothing that is supported.

Source: BlueZ, doc/org.bluez.AdvertisementMonitor(Manager); src/adv_monitor.c for the order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbus_fast import Variant

from kerb_sim.air.adstructure import Pattern, Structures
from kerb_sim.air.errors import INVALID_ARGUMENTS, BluezError

INTERFACE = "org.bluez.AdvertisementMonitor1"
_TYPE = "or_patterns"
_CONTENT_BYTES = 31

Call = Callable[[str, str, str, str, list[Any]], None]  # client, path, member, signature, body


class Monitors:
    """The monitors of one adapter."""

    def __init__(self, call: Call) -> None:
        """call: sends a method call, without a reply, to a client's monitor."""
        self._call = call
        self._roots: set[tuple[str, str]] = set()
        self._patterns: dict[tuple[str, str], list[Pattern]] = {}
        self._found: set[tuple[str, str, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def register(self, client: str, root: str) -> None:
        """Watch what `client` exports below `root`."""
        if (client, root) in self._roots:
            raise BluezError("AlreadyExists", "Already Exists")
        self._roots.add((client, root))

    def unregister(self, client: str, root: str) -> None:
        """Forget a root and its monitors."""
        if (client, root) not in self._roots:
            raise BluezError("DoesNotExist", "Does Not Exist")
        self._roots.discard((client, root))
        for owner, path in list(self._patterns):
            if owner == client and _within(path, root):
                self.withdrawn(owner, path)

    def exported(self, client: str, path: str, properties: dict[str, Variant]) -> None:
        """A client exported a monitor: activate it, or release it."""
        if not any(owner == client and _within(path, root) for owner, root in self._roots):
            return
        try:
            self._patterns[(client, path)] = _patterns(properties)
        except BluezError:
            self._call(client, path, "Release", "", [])
            return
        self._call(client, path, "Activate", "", [])

    def withdrawn(self, client: str, path: str) -> None:
        """A client took a monitor back."""
        self._patterns.pop((client, path), None)
        self._found = {one for one in self._found if one[:2] != (client, path)}

    def vanished(self, client: str) -> None:
        """A client left the bus: its roots and monitors go with it."""
        self._roots = {one for one in self._roots if one[0] != client}
        for owner, path in list(self._patterns):
            if owner == client:
                self.withdrawn(owner, path)

    def matching(self, structures: Structures) -> list[tuple[str, str]]:
        """Return the (client, path) of each monitor that an advert concerns."""
        return [
            monitor
            for monitor, patterns in self._patterns.items()
            if any(pattern.matches(structures) for pattern in patterns)
        ]

    def tell(self, monitors: list[tuple[str, str]], device: str) -> None:
        """Tell monitors of a device that they have not been told of."""
        for client, path in monitors:
            if (client, path, device) not in self._found:
                self._found.add((client, path, device))
                self._call(client, path, "DeviceFound", "o", [device])

    def forget(self, device: str) -> None:
        """A device object is gone: its next advert is found anew."""
        self._found = {one for one in self._found if one[2] != device}


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _patterns(properties: dict[str, Variant]) -> list[Pattern]:
    kind, rows = properties.get("Type"), properties.get("Patterns")
    if kind is None or kind.value != _TYPE or rows is None or rows.signature != "a(yyay)":
        raise BluezError(*INVALID_ARGUMENTS)
    patterns = [Pattern(start, number, bytes(content)) for start, number, content in rows.value]
    if not patterns or any(
        not one.content or one.start + len(one.content) > _CONTENT_BYTES for one in patterns
    ):
        raise BluezError(*INVALID_ARGUMENTS)
    return patterns
