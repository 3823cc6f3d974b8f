"""One street: its nodes, its air, its broker, and the gateways that serve it.

Rule: everything here lives on one timeline, decided by one seed; at last everything comes to rest
and must have arrived.
"""

from __future__ import annotations

from typing import Any

from kerb_check.model import Finding
from kerb_gateway.config import Config, Secrets

from kerb_tools.simulate.air import Air
from kerb_tools.simulate.bin import Bin
from kerb_tools.simulate.broker import Broker
from kerb_tools.simulate.chance import Odds, generator
from kerb_tools.simulate.commander import Commander
from kerb_tools.simulate.coverage import Coverage
from kerb_tools.simulate.departures import Departures
from kerb_tools.simulate.house import House
from kerb_tools.simulate.judge import Found
from kerb_tools.simulate.lamp import Lamp
from kerb_tools.simulate.mishaps import Mishaps
from kerb_tools.simulate.owners import Owners
from kerb_tools.simulate.seams import exchanged
from kerb_tools.simulate.tailbook import TailBook
from kerb_tools.simulate.timeline import YEAR_S, Timeline
from kerb_tools.simulate.trace import Trace
from kerb_tools.simulate.truth import Truth

Node = Bin | Lamp

_DRAIN_S = 86400.0
_RECONNECT_S = 60.0
_REST_S = 3 * 3600.0
_LAMP_SHARE = 0.3
_UNHEARD_S = 7200.0
_GEOMETRY = {"shape": "box", "empty_distance_mm": 2000, "full_distance_mm": 300}


class Street:
    """Everything of one run."""

    def __init__(
        self, seed: int, years: float, nodes: int, odds: Odds | None = None, *, gateways: int = 1
    ) -> None:
        """nodes: of each gateway; several gateways share the bins, each has lamps of its own."""
        self.seed = seed
        self.odds = odds or Odds()
        self.calm = False  # no mishap any more, and bins speak more often
        self.resting = False  # nodes are silent
        self.over = False  # no process begins any more
        self.grouped = gateways > 1
        self.timeline = Timeline()
        self.trace = Trace(self.timeline)
        self.truth = Truth(lambda name: self.houses[0].judge.found("a nonce used twice", name))
        self.owners = Owners(self)
        self.tailbook = TailBook(self)
        self.departures = Departures(self, generator(seed, "departures"))
        self.broker = Broker(self, generator(seed, "broker"))
        self.houses = [
            House(self, f"gw{number + 1}", grouped=self.grouped) for number in range(gateways)
        ]
        self._now: House = self.houses[0]  # whose turn it is
        self.coverage = Coverage(self._classified)
        self.air = Air(self, generator(seed, "air"))
        self.commander = Commander(self, generator(seed, "commander"))
        self.nodes: dict[str, Node] = {}
        self._random = generator(seed, "street")
        self._lease_s = self._random.choice((2700, 3600))
        self._populate(nodes)
        for number, house in enumerate(self.houses):
            house.configure(*self._configuration(number, house))
        self._end_s = years * YEAR_S

    def _populate(self, nodes: int) -> None:
        lamps = int(nodes * _LAMP_SHARE)
        for number in range(nodes - lamps):
            node_id = f"a4cf12{number:06x}"
            random = generator(self.seed, node_id)
            self.nodes[node_id] = Bin(self, node_id, self._random.randbytes(16), random)
        for house in self.houses:
            for unit in range(1, lamps + 1):
                node_id = f"a4cf12{len(self.nodes):06x}"
                random = generator(self.seed, node_id)
                lamp = Lamp(self, house, node_id, self._random.randbytes(16), random)
                self.nodes[node_id] = house.bus.units[unit] = lamp

    def _configuration(self, number: int, house: House) -> tuple[Config, Secrets]:
        random = self._random
        bins = [node for node in self.nodes.values() if isinstance(node, Bin)]
        mine: list[Node] = [*bins, *house.bus.units.values()]
        table: dict[str, Any] = {
            "gateway": {"id": house.name, "site": "north"},
            "control": {"enabled": False},
            "store": {
                "path": "simulated.sqlite",
                "commit_interval_s": random.choice((600, 900, 1200)),
                "keep_days": random.choice((0.5, 1, 2)),
            },
            "uplink": {"host": "simulated", "in_flight": random.choice((5, 50))},
            "ble": {"adapters": ["hci0", "hci1"]},
            "bus": [
                {
                    "name": "street",
                    "port": house.name,
                    "poll_interval_s": random.choice((2700, 3600)),
                }
            ],
            "nodes": [self._node_table(house, node) for node in mine],
        }
        if self.grouped:
            table["group"] = {
                "lease_s": self._lease_s,
                "unheard_s": _UNHEARD_S,
                "backup": number > 0 and random.random() < 0.5,
            }
        config = Config.model_validate(table)
        # So small that an outage of some days leaves no room: the check allows no such value.
        store = config.store.model_copy(update={"max_mb": 1})
        secrets = Secrets.model_validate({"keys": {node.node_id: node.root_key for node in mine}})
        return config.model_copy(update={"store": store}), secrets

    def _node_table(self, house: House, node: Node) -> dict[str, Any]:
        table: dict[str, Any] = {"node_id": node.node_id, "role": node.role}
        if isinstance(node, Lamp):
            unit = next(unit for unit, one in house.bus.units.items() if one is node)
            return table | {"link": "modbus", "bus": "street", "unit": unit}
        geometry = self.geometry(node.node_id)
        return table | ({} if geometry is None else {"geometry": geometry})

    def geometry(self, node_id: str) -> dict[str, Any] | None:
        """Return the container that the configuration gives to each second bin."""
        return _GEOMETRY if int(node_id, 16) % 2 else None

    def _open_bus(self, port: str, **settings: Any) -> Any:
        house = next(one for one in self.houses if one.name == port)
        return house.bus.open(port, **settings)

    def _classified(self, *what: Any, live: bool) -> None:
        self._now.judge.classified(*what, live=live)

    def settled(self, node: str, epoch: int, seq: int) -> bool:
        """Tell whether a number has arrived from any gateway or is declared lost by one."""
        return any(house.judge.books.is_upstream(node, epoch, seq) for house in self.houses)

    @property
    def left_s(self) -> float:
        """How long mishaps go on."""
        return max(0.0, self._end_s - self.timeline.now_s)

    # --- the run ---

    def run(self) -> Finding | None:
        """Live the years; returns what the judge found, or None."""
        for node in self.nodes.values():
            node.start()
        Mishaps(self, generator(self.seed, "mishaps")).begin()
        self.departures.begin()
        self.tailbook.begin()
        self.timeline.at(self._end_s, self._calm_down)
        self.timeline.at(self._end_s + _DRAIN_S, self._rest)
        self.timeline.at(self._end_s + _DRAIN_S + _REST_S, self._finish)
        if self.grouped:
            self.owners.begin(self._lease_s)
        with exchanged(generator(self.seed, "dice"), self._open_bus, self.coverage):
            try:
                self._live()
                for house in self.houses:
                    house.judge.finish()
                self.tailbook.finish()
                self._everything_settled()
            except Found as found:
                return found.finding
        return None

    def _live(self) -> None:
        houses, step = self.houses, self.timeline.step
        for house in houses:
            house.begin()
        while not all(house.ended for house in houses):
            for house in houses:
                if house.ready:
                    self._now = house
                    house.turn()
            step()

    def _everything_settled(self) -> None:
        """Over all gateways every number of each node has arrived or is declared lost.

        Of an epoch that has ended: every number up to the last one that a gateway knew of. In a
        group its end may be known to one that does not own the node: its gaps stay open while it
        does not, and the tail that the owner has said covers them upstream. Of a bin that is gone,
        what lies in gaps stays open, and its tail covers the rest.
        """
        last_seqs = {
            (node_id, node.log.epoch): node.log.last_seq for node_id, node in self.nodes.items()
        }
        for house in self.houses:
            for key, last_seq in house.judge.watermarks():
                last_seqs[key] = max(last_seq, last_seqs.get(key, 0))
        for (node_id, epoch), last_seq in last_seqs.items():
            if node_id in self.departures.gone:
                continue
            ended = epoch != self.nodes[node_id].log.epoch
            tail_seq = self.tailbook.first_seq(node_id, epoch) if ended else None
            for seq in range(1, last_seq + 1):
                if tail_seq is not None and seq >= tail_seq:
                    break
                if not self.settled(node_id, epoch, seq):
                    name = f"{node_id}/{epoch}/{seq}"
                    self.houses[0].judge.found("neither arrived nor declared", name)

    # --- the end ---

    def _calm_down(self) -> None:
        self.trace.note("calm")
        self.calm = True
        for house in self.houses:
            house.disk.full_until_s = min(house.disk.full_until_s, self.timeline.now_s)
        self.broker.comes_up()
        # Commands beyond the gateway's queue are left with the broker until it connects anew.
        for quarter in (1, 2, 3):
            self.timeline.after(quarter * _DRAIN_S / 4, self.broker.goes_down, _RECONNECT_S)
        for node in self.nodes.values():
            if node.node_id not in self.departures.gone:
                node.away_until_s = 0.0

    def _rest(self) -> None:
        self.trace.note("rest")
        self.resting = True

    def _finish(self) -> None:
        self.over = True
        for house in self.houses:
            house.stop()
