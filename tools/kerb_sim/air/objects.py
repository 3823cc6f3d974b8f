"""A tree of D-Bus objects with interfaces and properties, and the signals that announce changes.

Rule: what org.freedesktop.DBus.ObjectManager and .Properties promise is kept here, once, for
every object of the emulated BlueZ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_ERROR = "org.freedesktop.DBus.Error."

Properties = dict[str, Variant]
OnSet = Callable[[str, str, str, Variant], None]


class ObjectTree:
    """path -> interface -> property -> Variant; every change is signalled on `bus`."""

    def __init__(self, bus: MessageBus, writable: dict[str, set[str]], on_set: OnSet) -> None:
        """writable: interface -> the properties that clients may set; on_set is told of each."""
        self._bus = bus
        self._writable = writable
        self._on_set = on_set
        self.objects: dict[str, dict[str, Properties]] = {}
        self.held: list[Message] | None = None  # signals that somebody keeps back

    def add(self, path: str, interfaces: dict[str, Properties]) -> None:
        """Add an object with its interfaces."""
        self.objects[path] = interfaces
        self._signal("/", _MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    def remove(self, path: str) -> None:
        """Remove an object and everything below it, the deepest first."""
        for one in sorted(self.below(path), key=len, reverse=True):
            interfaces = self.objects.pop(one)
            self._signal("/", _MANAGER, "InterfacesRemoved", "oas", [one, list(interfaces)])

    def below(self, path: str) -> list[str]:
        """Return the paths of an object and of what lies below it."""
        return [one for one in self.objects if one == path or one.startswith(path + "/")]

    def change(self, path: str, interface: str, changed: Properties) -> None:
        """Set properties and signal them; nothing happens if the object has gone."""
        held = self.objects.get(path, {}).get(interface)
        if held is None or not changed:
            return
        held.update(changed)
        self._signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, changed, []])

    def invalidate(self, path: str, interface: str, name: str) -> None:
        """Take a property away and signal it."""
        held = self.objects.get(path, {}).get(interface)
        if held is None or held.pop(name, None) is None:
            return
        self._signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, {}, [name]])

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
            return Message.new_error(message, f"{_ERROR}UnknownObject", str(message.path))
        if message.member == "GetAll":
            return Message.new_method_return(message, "a{sv}", [held])
        name = message.body[1]
        if message.member == "Get":
            if name not in held:
                return self._unknown(message, name)
            return Message.new_method_return(message, "v", [held[name]])
        return self._set(message, interface, held, name, message.body[2])

    def _set(
        self, message: Message, interface: str, held: Properties, name: str, value: Variant
    ) -> Message:
        if name not in held:
            return self._unknown(message, name)
        if name not in self._writable.get(interface, set()):
            return Message.new_error(message, f"{_ERROR}PropertyReadOnly", name)
        if value.signature != held[name].signature:
            return Message.new_error(message, f"{_ERROR}InvalidArgs", name)
        if value.value != held[name].value:
            self.change(str(message.path), interface, {name: value})
            self._on_set(str(message.path), interface, name, value)
        return Message.new_method_return(message)

    def _unknown(self, message: Message, name: str) -> Message:
        return Message.new_error(message, f"{_ERROR}UnknownProperty", name)

    def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        signal = Message.new_signal(path, interface, member, signature, body)
        if self.held is not None:
            self.held.append(signal)
        elif self._bus.connected:
            self._bus.send(signal)
