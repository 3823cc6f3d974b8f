"""A whole virtual street: boards, world, air, bus, broker, and the faults that befall them.

Rule: it holds everything but the gateway; whatever a run leaves lies in one directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from kerb_wire import provisioning
from kerb_wire.words import ROLES, code

from kerb_sim import gateway_config, plan
from kerb_sim.air.bluez import Bluez
from kerb_sim.air.dbus_daemon import DbusDaemon
from kerb_sim.air.medium import Advert, Air
from kerb_sim.board.spec import BoardSpec, manufacture
from kerb_sim.board.virtual import VirtualBoard
from kerb_sim.broker import Broker
from kerb_sim.bus.wire import Bus
from kerb_sim.cutwire import CutWire
from kerb_sim.world.container import CATALOGUE, Container
from kerb_sim.world.luminaire import NOMINAL_MA, Luminaire
from kerb_sim.world.record import Record
from kerb_sim.world.surroundings import BinSurroundings, LampSurroundings, Surroundings

SITE = "demo"
TIME_SCALE = 300.0
_BAUDRATE = 115200
_GATEWAY_END = "gateway"
_TICK_S = 0.25
_SPREAD_S = 2.0
_WAKE_PAUSE_S = 0.15
_DE_PIN = 4
_SUPPLY_MIN_MV = 18_000
_LEASE_S, _LEASE_LEAST_S = 600, 3.0


@dataclass
class Member:
    """A board of the street and what surrounds it."""

    name: str
    role: str
    unit: int
    board: VirtualBoard
    around: Surroundings
    fill_rate: float = 0.0


class Street:
    """Build with prepare(), run with start(), faults() and stop_measuring(), end with close()."""

    def __init__(
        self,
        run_dir: Path,
        *,
        bins: int,
        lamps: int,
        seed: int,
        duration_s: float,
        interpreter: Path,
        dbus_daemon: Path,
        scale: float = TIME_SCALE,
        adapters: tuple[str, ...] = ("hci0",),
        faults: plan.Plan | None = None,
        bin_settings: dict[str, int] | None = None,
        commit_s: float | None = None,
        gateways: int = 1,
    ) -> None:
        """bin_settings: settings of every bin node beside the scaled intervals;
        commit_s: the gateway's commit interval, if not the scaled one; gateways: so many hear
        the bins, each with its own adapter; the lamps' bus is the first one's.
        """
        self.run_dir = run_dir
        self.scale = scale
        self.plan = faults or plan.make(seed, bins, duration_s, lamps)
        self.broker = Broker(run_dir)
        self.members: list[Member] = []
        self.commit_interval_ms = 0
        self._bins, self._lamps, self._seed = bins, lamps, seed
        self._interpreter, self._dbus_daemon = interpreter, dbus_daemon
        self.gateways = [f"gw{number}" for number in range(1, gateways + 1)]
        self.uplinks: dict[str, CutWire] = {}  # of a group: each way to the broker can be cut
        self._adapters = adapters if gateways == 1 else tuple(f"hci{n}" for n in range(gateways))
        self._bin_settings = bin_settings or {}
        self._commit_s = commit_s
        self._rng = random.Random(seed)
        self._heard: dict[str, bytes] = {}
        self._on_air: dict[tuple[str, int], tuple[float, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.injected = 0

    @property
    def bus_address(self) -> str:
        """DBUS_SYSTEM_BUS_ADDRESS for the gateway."""
        return self._dbus.address

    async def prepare(self) -> None:
        """Manufacture the boards, write the plan and the gateway's configuration."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        (self.run_dir / "keys").mkdir(mode=0o700, exist_ok=True)
        text = asdict(self.plan) | {"plan_hash": self.plan.hash}
        (self.run_dir / "plan.json").write_text(json.dumps(text, indent=1) + "\n")
        self.record = Record(self.run_dir / "world.jsonl")
        self.air = Air(self._seed, self.plan.event_loss)
        self.air.policy = self._policy
        self.bus = Bus(_BAUDRATE, self._seed, self.plan.bus_noise)
        gateway_port = self.bus.attach(_GATEWAY_END) if self._lamps else None
        tables = [self._make_bin(index) for index in range(self._bins)]
        tables += [self._make_lamp(index) for index in range(self._lamps)]
        if len(self.gateways) > 1:
            for name in self.gateways:
                self.uplinks[name] = await CutWire.start(self.broker.port)
        for index, name in enumerate(self.gateways):
            self._configure(index, name, gateway_port, tables)

    def _configure(
        self, index: int, name: str, gateway_port: Path | None, tables: list[str]
    ) -> None:
        """Write a gateway's configuration: the first has the bus and its lamps."""
        alone = len(self.gateways) == 1
        adapters = self._adapters if alone else (self._adapters[index],)
        commit_s = gateway_config.write(
            self.config_of(name),
            scale=self.scale,
            site=SITE,
            port=self.broker.port if alone else self.uplinks[name].port,
            adapters=adapters if self._bins else (),
            bus_port=gateway_port if index == 0 else None,
            baudrate=_BAUDRATE,
            nodes=tables if index == 0 else tables[: self._bins],
            commit_s=self._commit_s,
            gateway=name,
            store=self.database_of(name).name,
            lease_s=None if alone else max(_LEASE_LEAST_S, round(_LEASE_S / self.scale, 2)),
        )
        self.commit_interval_ms = round(commit_s * 1000)

    def config_of(self, gateway: str) -> Path:
        """Return a gateway's configuration file."""
        return self.run_dir / f"{self._stem(gateway)}.toml"

    def database_of(self, gateway: str) -> Path:
        """Return a gateway's database."""
        return self.run_dir / f"{self._stem(gateway)}.sqlite"

    def log_of(self, gateway: str) -> Path:
        """Return a gateway's log."""
        return self.run_dir / f"{self._stem(gateway)}.log"

    def _stem(self, gateway: str) -> str:
        return "gateway" if gateway == self.gateways[0] else f"gateway-{gateway}"

    def _identity(self, index: int, role: str, unit: int) -> tuple[bytes, bytes]:
        """Return (node_id, identity blob); the key goes to the gateway's key file only."""
        node_id = bytes.fromhex("a4cf12") + bytes(
            [self._rng.randrange(256), code(ROLES, role), 4 * index]
        )
        key = os.urandom(16)
        path = self.run_dir / "keys" / f"{node_id.hex()}.key"
        path.touch(mode=0o600)
        path.write_text(key.hex() + "\n")
        return node_id, provisioning.pack(code(ROLES, role), unit, node_id, key, SITE.encode())

    def _scaled(self, product_ms: int, least_ms: int) -> int:
        return max(least_ms, round(product_ms / self.scale))

    def _make_bin(self, index: int) -> str:
        node_id, identity = self._identity(index, "bin", 0)
        shape = CATALOGUE[index % len(CATALOGUE)]
        container = Container(
            shape, self._rng.uniform(0.05, 0.8), random.Random(self._seed + index)
        )
        around = BinSurroundings(
            node_id.hex(),
            self.record,
            container,
            self._rng.uniform(-8, 30),
            random.Random(self._seed * 31 + index),
        )
        spec = BoardSpec(
            node_id,
            self.run_dir / "nodes" / node_id.hex(),
            identity,
            {
                "wake_interval_ms": self._scaled(900000, 1500),
                "service_wake_ms": self._scaled(30000, 1000),
                "connectable_every": 4,
                "connect_window_ms": 1500,
                "console_window_ms": 0,
                "watchdog_ms": 20000,
            }
            | self._bin_settings,
        )
        manufacture(spec)
        board = VirtualBoard(
            spec,
            around,
            interpreter=self._interpreter,
            air=self.air,
            rssi=self._rng.randint(-88, -55),
        )
        rate = self._rng.uniform(0.15, 0.5) / 60
        self.members.append(Member(node_id.hex(), "bin", 0, board, around, rate))
        return (
            f'[[nodes]]\nnode_id = "{node_id.hex()}"\nrole = "bin"\nlink = "ble"\n'
            f'key_file = "keys/{node_id.hex()}.key"\n[nodes.geometry]\nshape = "{shape.kind}"\n'
            f"empty_distance_mm = {shape.empty_distance_mm}\n"
            f"full_distance_mm = {shape.full_distance_mm}\n"
        )

    def _make_lamp(self, index: int) -> str:
        unit = index + 1
        node_id, identity = self._identity(index, "lamp", unit)
        luminaire = Luminaire(random.Random(self._seed * 37 + index))
        around = LampSurroundings(node_id.hex(), self.record, luminaire)
        spec = BoardSpec(
            node_id,
            self.run_dir / "nodes" / node_id.hex(),
            identity,
            {
                "log_interval_ms": self._scaled(900000, 1500),
                "silence_ms": self._scaled(900000, 1500) * 5,
                "nominal_load_ma": NOMINAL_MA,
                "supply_min_mv": _SUPPLY_MIN_MV,
                "fault_after_ms": self._scaled(5000, 1000),
                "fault_gap_ms": self._scaled(60000, 1000),
                "baudrate": _BAUDRATE,
                "console_window_ms": 0,
                "watchdog_ms": 20000,
            },
            uart=self.bus.attach(node_id.hex()),
            driver_enable_pin=_DE_PIN,
        )
        manufacture(spec)
        board = VirtualBoard(spec, around, interpreter=self._interpreter)
        self.members.append(Member(node_id.hex(), "lamp", unit, board, around))
        return (
            f'[[nodes]]\nnode_id = "{node_id.hex()}"\nrole = "lamp"\nlink = "modbus"\n'
            f'bus = "street"\nunit = {unit}\nkey_file = "keys/{node_id.hex()}.key"\n'
        )

    async def start(self) -> None:
        """Start broker, bus, air and boards; the boards' first wakes are spread a little."""
        await self.broker.start()
        self._dbus = await DbusDaemon.start(self._dbus_daemon, self.run_dir / "dbus")
        self.bluez = Bluez(self._dbus.address, self.air, self._adapters)
        await self.bluez.start()
        self.bus.start()

    async def power_up(self) -> None:
        """Give every board its power."""
        for index, member in enumerate(self.members):
            self._later(self._power_up(member, index * _SPREAD_S / max(1, len(self.members))))
        self._later(self._fill_up())

    async def _power_up(self, member: Member, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await member.board.power_on()

    async def _fill_up(self) -> None:
        """Let people throw things away."""
        while True:
            await asyncio.sleep(_TICK_S)
            for member in self.members:
                if isinstance(member.around, BinSurroundings) and self._rng.random() < 0.3:
                    part = member.fill_rate * _TICK_S / 0.3 * self._rng.uniform(0.2, 1.8)
                    if member.around.container.add(part):
                        self.record.write("emptied", node=member.name)

    def _policy(self, address: str, data: bytes) -> bool:
        """Drop all events of one wake's advert where the plan wants that wake unheard."""
        counter = int.from_bytes(data[-8:-4], "little")
        now = asyncio.get_running_loop().time()
        before, wake = self._on_air.get((address, counter), (now, 0))
        if now - before > _WAKE_PAUSE_S:
            wake += 1  # the same reading again, from a later wake: a new chance
        self._on_air[(address, counter)] = (now, wake)
        if plan.drops(self.plan.seed, self.plan.advert_drop, f"{address}/{wake}", counter):
            return True
        self._heard[address] = data
        return False

    # --- faults ---

    def faults(self) -> None:
        """Let the plan take its course, counted from now."""
        self._later(self._cut_power())
        if self._lamps:
            self._later(self._silence())
            self._later(self._kill_unit())
            self._later(self._fail_lamp())
        self._later(self._restart_broker())
        if self._bins:
            self._later(self._replay())

    async def _cut_power(self) -> None:
        """Cut one bin's power while it sleeps, and give it back."""
        bins = [member for member in self.members if member.role == "bin"]
        if not bins:
            return
        await asyncio.sleep(self.plan.power_cut_s)
        member = bins[self.plan.power_cut_bin % len(bins)]
        with contextlib.suppress(TimeoutError):
            await member.board.wait_for("sleeping", timeout_s=20)
        await member.board.power_cut()
        self.record.write("fault", what="power cut", node=member.name)
        await asyncio.sleep(self.plan.power_off_s)
        await member.board.power_on()

    def failing_lamp(self) -> Member | None:
        """Return the lamp that the plan lets fail in the time of its run, or None."""
        lamps = [member for member in self.members if member.role == "lamp"]
        if not lamps or self.plan.lamp_fault_s >= self.plan.duration_s:
            return None
        return lamps[self.plan.lamp_fault_lamp % len(lamps)]

    async def _fail_lamp(self) -> None:
        """Let a luminaire fail for a while, as a loose plug does."""
        member = self.failing_lamp()
        if member is None or not isinstance(member.around, LampSurroundings):
            return
        await asyncio.sleep(self.plan.lamp_fault_s)
        member.around.fail(self.plan.lamp_fault_kind)
        await asyncio.sleep(self.plan.lamp_fault_for_s)
        member.around.fail("")

    async def _silence(self) -> None:
        await asyncio.sleep(self.plan.bus_silence_s)
        self.record.write("fault", what="bus silent", for_s=self.plan.bus_silence_for_s)
        self.bus.silence(self.plan.bus_silence_for_s)

    async def _kill_unit(self) -> None:
        """One lamp's transceiver is dead for a while; the lamp itself burns on."""
        lamps = [member.name for member in self.members if member.role == "lamp"]
        await asyncio.sleep(self.plan.dead_unit_s)
        name = lamps[self.plan.dead_unit % len(lamps)]
        self.record.write("fault", what="dead unit", node=name, for_s=self.plan.dead_unit_for_s)
        self.bus.trouble(name, dead=True)
        await asyncio.sleep(self.plan.dead_unit_for_s)
        self.bus.trouble(name)

    async def _restart_broker(self) -> None:
        await asyncio.sleep(self.plan.broker_restart_s)
        self.record.write("fault", what="broker restart", down_s=self.plan.broker_down_for_s)
        await self.broker.stop()
        await asyncio.sleep(self.plan.broker_down_for_s)
        await self.broker.start()

    async def _replay(self) -> None:
        """Put adverts of some seconds ago on the air again, as an attacker would."""
        for number in range(self.plan.replays):
            await asyncio.sleep(self.plan.duration_s / (self.plan.replays + 1))
            if not self._heard:
                continue
            address = sorted(self._heard)[number % len(self._heard)]
            data = self._heard[address]
            # Later, when the node has moved on.
            await asyncio.sleep(min(4.0, self.plan.duration_s / 10))
            node = next(
                m.name
                for m in self.members
                if m.board.radio is not None and m.board.radio.address == address
            )
            counter = int.from_bytes(data[-8:-4], "little")
            self.record.write("replay", node=node, counter=counter)
            self.injected += 1
            self.air.inject(Advert(address, data, -60, False))

    def stop_measuring(self) -> None:
        """Hold the service magnet to every board: no new readings from its next wake on."""
        for member in self.members:
            member.around.service = True
        self.record.write("measuring_stopped")

    def _later(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End everything; the run's directory stays."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.board.close() for member in self.members))
        await self.bluez.stop()
        await self._dbus.stop()
        self.bus.close()
        for wire in self.uplinks.values():
            await wire.stop()
        await self.broker.stop()
        self.record.close()
