"""One street for one gateway: its nodes, its air, its machine, and the lives of its process.

Rule: a life ends by a crash, an error of the disk or a stop; what is left is the database, and
after each end the judge looks at it. At last everything comes to rest and must have arrived.
"""

from __future__ import annotations

from typing import Any

from kerb_check.model import Finding
from kerb_gateway.config import Config, Secrets
from kerb_gateway.errors import StoreError, StoreFull
from kerb_gateway.uplink.topics import Topics

from kerb_tools.simulate.air import Air
from kerb_tools.simulate.bin import Bin
from kerb_tools.simulate.broker import Broker
from kerb_tools.simulate.bus import Bus
from kerb_tools.simulate.chance import Odds, generator
from kerb_tools.simulate.commander import Commander
from kerb_tools.simulate.coverage import Coverage
from kerb_tools.simulate.disk import new_disk
from kerb_tools.simulate.gateway import Machine, SimulatedGateway
from kerb_tools.simulate.judge import Found, Judge
from kerb_tools.simulate.lamp import Lamp
from kerb_tools.simulate.loop import SimulatedLoop
from kerb_tools.simulate.mishaps import Mishaps
from kerb_tools.simulate.restores import Taken
from kerb_tools.simulate.seams import exchanged
from kerb_tools.simulate.timeline import YEAR_S, Crash, Timeline
from kerb_tools.simulate.trace import Trace

Node = Bin | Lamp

_DRAIN_S = 86400.0
_RECONNECT_S = 60.0
_REST_S = 2 * 3600.0
_LAMP_SHARE = 0.3
_DOWN_S = (0.5, 30.0)
_REBOOT_S = (40.0, 7200.0)


class Street:
    """Everything of one run."""

    def __init__(self, seed: int, years: float, nodes: int, odds: Odds | None = None) -> None:
        self.seed = seed
        self.odds = odds or Odds()
        self.calm = False  # no mishap any more, and bins speak more often
        self.resting = False  # nodes are silent
        self.alive = False
        self.rebooting = False
        self.restoring: Taken | None = None  # what the end of this life is followed by
        self.topics = Topics("north", "gw1")
        self.timeline = Timeline()
        self.trace = Trace(self.timeline)
        self.machine = Machine(self.timeline)
        self.disk = new_disk(self)
        self.judge = Judge(self)
        self.coverage = Coverage(self.judge.classified)
        self.air = Air(self, generator(seed, "air"))
        self.bus = Bus(self, generator(seed, "bus"))
        self.broker = Broker(self, generator(seed, "broker"))
        self.commander = Commander(self, generator(seed, "commander"))
        self.nodes: dict[str, Node] = {}
        self._random = generator(seed, "street")
        self._populate(nodes)
        self._config, self._secrets = self._configuration()
        self._gateway: SimulatedGateway | None = None
        self._end_s = years * YEAR_S
        self._over = False
        self.lives = 0

    def _populate(self, nodes: int) -> None:
        lamps = int(nodes * _LAMP_SHARE)
        for number in range(nodes):
            node_id = f"a4cf12{number:06x}"
            key = self._random.randbytes(16)
            random = generator(self.seed, node_id)
            if number < nodes - lamps:
                self.nodes[node_id] = Bin(self, node_id, key, random)
            else:
                lamp = Lamp(self, node_id, key, random)
                self.nodes[node_id] = lamp
                self.bus.units[number + 1] = lamp

    def _configuration(self) -> tuple[Config, Secrets]:
        random = self._random
        table: dict[str, Any] = {
            "gateway": {"id": "gw1", "site": "north"},
            "control": {"enabled": False},
            "store": {
                "path": "simulated.sqlite",
                "commit_interval_s": random.choice((300, 600, 900)),
                "keep_days": random.choice((0.5, 1, 2)),
            },
            "uplink": {"host": "simulated", "in_flight": random.choice((5, 50))},
            "ble": {"adapters": ["hci0", "hci1"]},
            "bus": [
                {
                    "name": "street",
                    "port": "simulated",
                    "poll_interval_s": random.choice((2700, 3600)),
                }
            ],
            "nodes": [self._node_table(number, node) for number, node in enumerate(self._list())],
        }
        config = Config.model_validate(table)
        # So small that an outage of some days leaves no room: the check allows no such value.
        store = config.store.model_copy(update={"max_mb": 1})
        keys = {node.node_id: node.root_key for node in self._list()}
        secrets = Secrets.model_validate({"keys": keys})
        return config.model_copy(update={"store": store}), secrets

    def _list(self) -> list[Node]:
        return list(self.nodes.values())

    def _node_table(self, number: int, node: Node) -> dict[str, Any]:
        table: dict[str, Any] = {"node_id": node.node_id, "role": node.role}
        if node.role == "lamp":
            return table | {"link": "modbus", "bus": "street", "unit": number + 1}
        geometry = {"shape": "box", "empty_distance_mm": 2000, "full_distance_mm": 300}
        return table | ({"geometry": geometry} if number % 2 else {})

    # --- the run ---

    def run(self) -> Finding | None:
        """Live the years; returns what the judge found, or None."""
        for node in self._list():
            node.start()
        Mishaps(self, generator(self.seed, "mishaps")).begin()
        self.timeline.at(self._end_s, self._calm_down)
        self.timeline.at(self._end_s + _DRAIN_S, self._rest)
        self.timeline.at(self._end_s + _DRAIN_S + _REST_S, self._finish)
        with exchanged(generator(self.seed, "dice"), self.bus, self.coverage):
            try:
                while not self._over:
                    self._life()
                    self.judge.audit()
                    self._down()
                self.judge.finish()
            except Found as found:
                return found.finding
        return None

    def _life(self) -> None:
        """One life of the process."""
        self.lives += 1
        loop = SimulatedLoop(self.timeline, generator(self.seed, f"loop {self.lives}"))
        random = generator(self.seed, f"life {self.lives}")
        self._gateway = SimulatedGateway(self, self._config, self._secrets, random)
        self.alive = True
        try:
            loop.run_until_complete(self._gateway.live())
        except Crash:
            self.trace.note("the process is gone")
        except StoreError as error:
            self.trace.note(f"the process has ended: {error}")
            if not self.disk.broken and not isinstance(error, StoreFull):
                self.judge.found("the process ended by itself", str(error))
        finally:
            self.alive = False
            self._gateway = None
            self.air.adapters = []
            self.bus.client = None
            if self.broker.client is not None:
                self.broker.client.die()
                self.broker.client = None
            loop.bury()
            self.disk.close()
        if loop.deaths:
            self.judge.found("a task died", loop.deaths[0])

    def _down(self) -> None:
        """The time until the next start."""
        down_s = self._random.uniform(*(_REBOOT_S if self.rebooting else _DOWN_S))
        if self.rebooting:
            self.machine.boot()
            self.rebooting = False
        if self.restoring is not None:
            self.restoring.restore(self)
            self.restoring = None
        if not self._over:
            self.timeline.advance(self.timeline.now_s + down_s)

    def stop_gateway(self) -> None:
        """Ask the process to end."""
        if self._gateway is not None:
            self.trace.note("asked to stop")
            self._gateway.ask_to_stop()

    # --- the end ---

    def _calm_down(self) -> None:
        self.trace.note("calm")
        self.calm = True
        self.disk.full_until_s = 0.0
        self.broker.comes_up()
        # Commands beyond the gateway's queue are left with the broker until it connects anew.
        for quarter in (1, 2, 3):
            self.timeline.after(quarter * _DRAIN_S / 4, self.broker.goes_down, _RECONNECT_S)
        for node in self._list():
            node.away_until_s = 0.0

    def _rest(self) -> None:
        self.trace.note("rest")
        self.resting = True

    def _finish(self) -> None:
        self._over = True
        self.stop_gateway()
