"""What befalls the street: each kind at its own rate, at moments that the seed decides.

Rule: nothing happens once the street is calm; a mishap that needs a living gateway passes by when
there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from kerb_tools.simulate import disk
from kerb_tools.simulate.bin import Bin
from kerb_tools.simulate.restores import Restores
from kerb_tools.simulate.timeline import YEAR_S

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.street import Node, Street

_HOUR_S = 3600.0
_DAY_S = 86400.0


class Mishaps:
    """Plans them all."""

    def __init__(self, street: Street, random: Random) -> None:
        self._street = street
        self._random = random

    def begin(self) -> None:
        """Plan the first of each kind."""
        odds = self._street.odds
        for a_year, call in (
            (odds.short_outages_a_year, lambda: self._outage(1200.0)),
            (odds.long_outages_a_year, lambda: self._outage(2.5 * _DAY_S)),
            (YEAR_S / odds.asked_every_s, self._street.commander.publish),
        ):
            self._every(a_year, call)
        for house in self._street.houses:
            self._house(house)
        for node in self._street.nodes.values():
            self._node(node)
        if self._street.grouped:
            self._every(odds.forgotten_a_year, self._street.broker.forgets)

    def _house(self, house: House) -> None:
        """Plan what befalls one gateway."""
        odds, arm = self._street.odds, house.disk.arm
        for a_year, call in (
            (odds.crashes_a_year, lambda: house.kill("crash")),
            (odds.crashes_a_year, lambda: arm(disk.CRASH_BEFORE)),
            (odds.crashes_a_year, lambda: arm(disk.CRASH_AFTER)),
            (odds.disk_errors_a_year, lambda: arm(disk.ERROR_BEFORE)),
            (odds.disk_errors_a_year, lambda: arm(disk.ERROR_AFTER)),
            (odds.reboots_a_year, lambda: house.kill("reboot", reboot=True)),
            (odds.stops_a_year, house.stop),
            (odds.full_disks_a_year, lambda: self._full_disk(house)),
            (odds.port_gone_a_year, house.bus.port_goes),
        ):
            self._every(a_year, call)
        if self._street.grouped:
            self._every(odds.deaths_a_year, lambda: self._death(house))
            self._every(odds.partitions_a_year, lambda: self._partition(house))
        restores = Restores(house)
        self._every(odds.restores_a_year, restores.back_up, restores.random)

    def _node(self, node: Node) -> None:
        """Plan what befalls one node, and who misuses its adverts."""
        odds, air = self._street.odds, self._street.air
        bins = sum(one.role == "bin" for one in self._street.nodes.values())
        self._every(odds.absences_a_year, partial(self._absence, node))
        self._every(odds.power_cuts_a_year, node.power_cut)
        self._every(odds.brownouts_a_year, node.brown_out)
        self._every(odds.new_epochs_a_year, node.new_epoch)
        self._every(odds.damaged_rows_a_year, lambda: node.log.damage(self._random.random()))
        if isinstance(node, Bin):
            self._every(odds.replays_a_year / bins, partial(air.replay, node))
            self._every(odds.forgeries_a_year / bins, partial(air.forge, node))

    def _every(
        self, a_year: float, call: Callable[[], None], random: Random | None = None
    ) -> None:
        if not a_year:
            return
        chosen = random or self._random

        def happen() -> None:
            if self._street.calm:
                return
            self._street.timeline.after(chosen.expovariate(a_year / YEAR_S), happen)
            call()

        self._street.timeline.after(chosen.expovariate(a_year / YEAR_S), happen)

    def _death(self, house: House) -> None:
        """Its machine is off for hours or days, and on again when the mishaps are over."""
        off_s = min(self._random.expovariate(1 / (0.6 * _DAY_S)), self._street.left_s)
        house.kill(f"dies for {off_s:.0f} s", off_s=off_s, reboot=True)

    def _partition(self, house: House) -> None:
        """Its way to the broker is gone; the others have theirs."""
        if house.client is not None:
            for_s = self._random.expovariate(1 / (2 * _HOUR_S))
            self._street.trace.note(f"{house.name} cut off for {for_s:.0f} s")
            house.client.cut(for_s)

    def _full_disk(self, house: House) -> None:
        until_s = self._street.timeline.now_s + self._random.uniform(0.2, 5) * _HOUR_S
        self._street.trace.note(f"{house.name} disk full")
        house.disk.full_until_s = until_s
        self._street.timeline.at(until_s, self._street.owners.disturbed)

    def _outage(self, mean_s: float) -> None:
        self._street.broker.goes_down(self._random.expovariate(1 / mean_s))

    def _absence(self, node: Node) -> None:
        for_s = self._random.expovariate(1 / (1.5 * _DAY_S))
        if node.node_id in self._street.departures.gone:
            return
        node.away_until_s = self._street.timeline.now_s + for_s
        self._street.trace.note(f"away {node.node_id} for {for_s:.0f} s")
