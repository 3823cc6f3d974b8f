"""A tree of D-Bus objects with interfaces and properties, and the signals that announce changes.

Rule: what org.freedesktop.DBus.ObjectManager and .Properties promise is kept here, once, for
every object of the emulated BlueZ.
"""

from __future__ import annotations

from typing import Any

from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"

Properties = dict[str, Variant]


class ObjectTree:
    """path -> interface -> property -> Variant; every change is signalled on `bus`."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.objects: dict[str, dict[str, Properties]] = {}

    def add(self, path: str, interfaces: dict[str, Properties]) -> None:
        """Add an object with its interfaces."""
        self.objects[path] = interfaces
        self._signal("/", _MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    def remove(self, path: str) -> None:
        """Remove an object and everything below it, the deepest first."""
        below = [one for one in self.objects if one == path or one.startswith(path + "/")]
        for one in sorted(below, key=len, reverse=True):
            interfaces = self.objects.pop(one)
            self._signal("/", _MANAGER, "InterfacesRemoved", "oas", [one, list(interfaces)])

    def change(self, path: str, interface: str, changed: Properties) -> None:
        """Set properties and signal them; nothing happens if the object has gone."""
        held = self.objects.get(path, {}).get(interface)
        if held is None:
            return
        held.update(changed)
        self._signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, changed, []])

    def value(self, path: str, interface: str, name: str) -> Any:
        """Return a property's plain value."""
        return self.objects[path][interface][name].value

    def answer(self, message: Message) -> Message | None:
        """Answer the standard interfaces' calls; None if the message is not one of them."""
        if message.interface == _MANAGER and message.member == "GetManagedObjects":
            return Message.new_method_return(message, "a{oa{sa{sv}}}", [self.objects])
        if message.interface != _PROPERTIES:
            return None
        interface = message.body[0]
        held = self.objects.get(str(message.path), {}).get(interface)
        if held is None:
            return Message.new_error(
                message, "org.freedesktop.DBus.Error.UnknownObject", str(message.path)
            )
        if message.member == "GetAll":
            return Message.new_method_return(message, "a{sv}", [held])
        if message.member == "Get":
            return Message.new_method_return(message, "v", [held[message.body[1]]])
        if message.member == "Set":
            self.change(str(message.path), interface, {message.body[1]: message.body[2]})
            return Message.new_method_return(message)
        return None

    def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        if self._bus.connected:
            self._bus.send(Message.new_signal(path, interface, member, signature, body))
