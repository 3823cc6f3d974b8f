"""How often what goes wrong, and the seeded chance that decides it.

Rule: each part draws from a generator of its own: one more draw here changes nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random


def generator(seed: int, part: str) -> Random:
    """Return a part's generator; the same for the same seed, whatever Python's hash seed is."""
    return Random(f"{seed}/{part}")


@dataclass(frozen=True)
class Odds:
    """Chances of single events, and how often a year things happen (`_a_year`)."""

    # adverts
    heard: tuple[float, ...] = (0.95, 0.12)  # by each adapter
    held: float = 0.012  # kept back by somebody and sent on up to hours later
    twin: float = 0.006  # followed by another content under the same number
    replays_a_year: float = 5000
    forgeries_a_year: float = 1500
    # sessions
    no_connection: float = 0.15
    broken: float = 0.006  # the connection, at each frame
    repeats: float = 0.25  # the node says some records again that nobody asked for
    tilted: float = 0.15  # the bin is moved during the visit, once or twice
    # bus
    unheard: float = 0.01
    unanswered: float = 0.01
    late: float = 0.01
    cut_short: float = 0.003
    port_gone_a_year: float = 50
    # broker
    refused: float = 0.0008
    quota: float = 0.002
    again: float = 0.01  # a message is put off
    owed: float = 0.0005  # its PUBACK never comes: each costs a connection
    no_subscriber: float = 0.002
    batch_refused: float = 0.05
    short_outages_a_year: float = 400
    long_outages_a_year: float = 8
    # the gateway's machine
    crashes_a_year: float = 120  # each: at any time, before a COMMIT, after one
    disk_errors_a_year: float = 40  # each: before a COMMIT, after one
    reboots_a_year: float = 40
    stops_a_year: float = 40
    full_disks_a_year: float = 60
    restores_a_year: float = 15  # a backup, and up to days later its restore
    # a group of gateways
    partitions_a_year: float = 200  # one loses its way to the broker, others do not
    deaths_a_year: float = 25  # one is off for hours or days
    forgotten_a_year: float = 8  # the broker starts anew without sessions
    # each node
    absences_a_year: float = 10
    power_cuts_a_year: float = 20
    brownouts_a_year: float = 8
    new_epochs_a_year: float = 3
    damaged_rows_a_year: float = 10
    gone: float = 1 / 14  # of the bins: for good, some time in a run
    # commands
    asked_every_s: float = 3600.0

    def times(self, factor: float) -> Odds:
        """Return the odds of a street where every mishap happens `factor` times as often."""
        rates = {one.name: getattr(self, one.name) for one in fields(self)}
        changed = {name: factor * a_year for name, a_year in rates.items() if "_a_year" in name}
        return replace(self, **changed)
