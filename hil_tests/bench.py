"""The words of a bench: power, reset, distance, flash, light, bus. Two benches speak them.

Rule: blocking calls with a bound; whatever a test may ask is here. On the virtual bench the world
plays the rig's probe; a serial bench skips a test at the word for which its rig lacks a part.
"""

from __future__ import annotations

from typing import Any, Protocol


class Bench(Protocol):
    """What a test may do with a board."""

    def power_on(self) -> None:
        """Give the board its power."""

    def power_cut(self) -> None:
        """Take the power away."""

    def reset(self) -> None:
        """Press the reset button."""

    def wait_asleep(self) -> None:
        """Wait until the wake that runs now has ended in deep sleep."""

    def wait_awake(self) -> None:
        """Wait until the board runs again; it may have run for a while."""

    def place_surface(self, distance_mm: float | None, air_c: float = 20.0) -> None:
        """Put a reflecting surface before the transducer; None: nothing in reach."""

    def press_tilt(self) -> None:
        """Tilt the board."""

    def stored(self) -> list[dict[str, Any]]:
        """Return the records on the board's flash, oldest first, `seq` and `epoch` among them.

        A test's last word: a real board is reset into maintenance for it and runs no more.
        """

    def adverts(self) -> dict[int, set[bytes]]:
        """Return the advertising data heard so far, by counter."""

    def boots(self) -> list[str]:
        """Return the causes of all starts so far."""

    def duty_pct(self) -> float:
        """Return the lamp output's duty."""

    def exchange(self, frame: bytes) -> bytes:
        """Send a frame on the RS-485 bus and return the answer; b"" for none."""

    def freeze(self) -> None:
        """Stop the application so that nothing feeds the watchdog."""

    def close(self) -> None:
        """Put everything away."""
