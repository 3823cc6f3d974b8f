"""How an emulated BlueZ behaves where real ones differ by version, kernel and controller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Habits:
    """The defaults are those of BlueZ 5.66 with --experimental on a kernel of 6.11 or newer."""

    passive: bool = True
    """AdvertisementMonitorManager1 is offered."""
    address_filter: bool = False
    """The kernel leaves the controller's duplicate filter on in a passive scan (5.17 to 6.10),
    and the controller takes every advert of an address for a duplicate: a passive scan hears a
    node once, an active one once in SCAN_S."""
    forget_s: float = 30.0
    """An unpaired device that was not heard for so long is forgotten (TemporaryTimeout)."""
    connect_timeout_s: float = 4.0
    """How long a Connect waits for a connectable advert."""
    discovery_s: float = 0.6
    """Service discovery: a dozen round trips at the default connection interval of 30 to 50 ms."""


SCAN_S = 10.24
"""One discovery scan of the kernel (DISCOV_LE_TIMEOUT); the next begins with an empty filter."""
