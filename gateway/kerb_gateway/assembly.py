"""Builds the gateway's parts from its configuration, each by a method of its own.

Rule: what is built here has done nothing yet but read the database; app.py starts it and brings it
down. A part is given what it needs, and knows nothing of the rest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from kerb_wire import bundle

from kerb_gateway.backfill import Backfill
from kerb_gateway.backups import Backups
from kerb_gateway.burial import Burial
from kerb_gateway.clock import SystemClock
from kerb_gateway.commands import Commands
from kerb_gateway.config import Config, Secrets
from kerb_gateway.desk import Desk
from kerb_gateway.group import Group, Terms
from kerb_gateway.guard import Guard
from kerb_gateway.ingest import Ingest
from kerb_gateway.links.ble import BleLink
from kerb_gateway.links.modbus import ModbusBus
from kerb_gateway.links.mqtt import LocalBroker
from kerb_gateway.links.nodes_mqtt import NodesMqtt
from kerb_gateway.logs import WARNINGS
from kerb_gateway.model import Geometry, Node
from kerb_gateway.publisher import Batch, Publisher
from kerb_gateway.replay import Replayer
from kerb_gateway.service.control import ControlSocket
from kerb_gateway.status import Situation
from kerb_gateway.store import leases as generations
from kerb_gateway.store import restore
from kerb_gateway.store.ballast import Ballast
from kerb_gateway.store.database import PUT_ASIDE, Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.letters import Letters
from kerb_gateway.store.replays import GATEWAY, Replays
from kerb_gateway.store.retention import Retention
from kerb_gateway.tails import Tails
from kerb_gateway.uplink.mqtt import Uplink
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics

_MB = 1024 * 1024


@dataclass(frozen=True)
class Core:
    """What nearly every part needs."""

    store: Store
    topics: Topics
    payloads: NativePayloads
    nodes: list[Node]
    ledger: Ledger
    ingest: Ingest
    uplink: Uplink


@dataclass(frozen=True)
class Parts:
    """The whole gateway, ready to be started."""

    core: Core
    publisher: Publisher
    group: Group | None
    backfill: Backfill
    buses: dict[str, ModbusBus]
    commands: Commands
    tails: Tails
    radios: list[BleLink]
    wifi: tuple[LocalBroker, NodesMqtt] | None
    retention: Retention
    replayer: Replayer
    control: ControlSocket


class Assembly:
    """What a configuration describes; a stand-in for the machine overrides single methods."""

    def __init__(self, config: Config, secrets: Secrets, logger: Any) -> None:
        self._config = config
        self._secrets = secrets
        self._logger = logger
        self._clock = SystemClock()
        self._stop = asyncio.Event()

    def _log(self, event: str, **fields: Any) -> None:
        say = self._logger.warning if event in WARNINGS else self._logger.info
        say(event, **fields)

    async def _assemble(self, store: Store) -> Parts:
        """Build everything over an open store."""
        core = await self._core(store)
        publisher = self._publisher(core)
        group = await self._group(core)
        backfill = self._backfill(core, group)
        buses = self._buses(core)
        commands = self._commands(core, buses, group)
        await commands.resume()
        tails = self._tails(core, group)
        await tails.begin()
        letters = Letters(store, core.ledger, self._clock)
        replays = Replays(store, core.ledger)
        replayer = self._replayer(core, publisher, replays)
        self._route(core, commands, replayer)
        return Parts(
            core=core,
            publisher=publisher,
            group=group,
            backfill=backfill,
            buses=buses,
            commands=commands,
            tails=tails,
            radios=self._radios(),
            wifi=self._wifi(core),
            retention=self._retention(core, letters),
            replayer=replayer,
            control=self._control(core, publisher, letters, replays),
        )

    async def _core(self, store: Store) -> Core:
        gateway = self._config.gateway
        topics = Topics(gateway.site, gateway.id, grouped=self._config.group is not None)
        payloads = NativePayloads(topics, store.gw_epoch)
        nodes = await self._nodes(store)
        ledger = await Ledger.load(store, payloads, nodes, self._log)
        payloads.offsets = ledger.anchors
        await self._said_of_damage(store, ledger)
        await self._said_of_restores(store, ledger)
        ingest = self._ingest(ledger, nodes)
        return Core(store, topics, payloads, nodes, ledger, ingest, self._uplink(topics))

    async def _said_of_damage(self, store: Store, ledger: Ledger) -> None:
        """Said until it is stored in the outbox, also by the next process."""
        for (name,) in await store.query("select value from meta where key = ?", [PUT_ASIDE]):
            aside = {"file": name, "gw_epoch": store.gw_epoch}
            self._log("damaged database put aside, begun anew", **aside)
            ledger.add_alarm("gateway", {"what": "damaged database put aside"} | aside)
            ledger.add(("delete from meta where key = ?", [PUT_ASIDE]))

    async def _said_of_restores(self, store: Store, ledger: Ledger) -> None:
        """Whose file it is goes into the file; that it was restored, into the log and upstream."""
        part = self._config.gateway
        names = (("site", part.site), ("gateway", part.id))
        known = dict(await store.query("select key, value from meta"))
        await store.write(
            [
                ("insert or replace into meta values (?,?)", pair)
                for pair in names
                if known.get(pair[0]) != pair[1]
            ]
        )
        if store.restore_cut:
            self._log("a restore was cut short: the old database stands")
        for fields in await restore.announce(store, ledger):
            self._log("backup restored", **fields)

    async def _nodes(self, store: Store) -> list[Node]:
        """Give each configured node its number in the database."""
        await store.write(
            [
                ("insert or ignore into nodes (node_id, role) values (?,?)", [n.node_id, n.role])
                for n in self._config.nodes
            ]
        )
        numbers = {
            row[1]: row[0] for row in await store.query("select node_no, node_id from nodes")
        }
        return [
            Node(
                node_no=numbers[part.node_id],
                node_id=part.node_id,
                role=part.role,
                root_key=self._secrets.keys[part.node_id].get_secret_value(),
                geometry=None if part.geometry is None else Geometry(**part.geometry.model_dump()),
                bus=part.bus if part.link == "modbus" else None,
                unit=part.unit,
                silent_after_s=part.silent_after_s,
                wifi=part.link == "mqtt",
            )
            for part in self._config.nodes
        ]

    def _ingest(self, ledger: Ledger, nodes: list[Node]) -> Ingest:
        """Readings in, one transaction a batch out."""
        return Ingest(
            ledger,
            nodes,
            self._clock,
            self._log,
            commit_interval_s=self._config.store.commit_interval_s,
            commit_rows=self._config.store.commit_rows,
            ballast=self._ballast(),
            door_s=self._config.backfill.door_s,
            guard=Guard(
                limit=self._config.ble.wrong_mics, window_s=self._config.ble.wrong_mics_window_s
            ),
        )

    def _ballast(self) -> Ballast:
        store = self._config.store
        ballast = Ballast(store.path, store.ballast_mb * _MB)
        if not ballast.load():
            self._log("little room on the disk: no ballast", path=str(store.path))
        return ballast

    def _uplink(self, topics: Topics) -> Uplink:
        part, password = self._config.uplink, self._secrets.password
        return Uplink(
            host=part.host,
            port=part.port,
            client_id=f"kerb-{self._config.gateway.site}-{self._config.gateway.id}",
            availability=topics.availability,
            commands=topics.commands,
            username=part.username,
            password=None if password is None else password.get_secret_value(),
            keepalive_s=part.keepalive_s,
            protocol=part.protocol,
            log=self._log,
        )

    def _publisher(self, core: Core) -> Publisher:
        """The way from the outbox to the broker."""
        return Publisher(
            core.ledger.outbox,
            core.uplink,
            core.ingest.committed,
            self._log,
            in_flight=self._config.uplink.in_flight,
            mark_s=self._config.store.commit_interval_s,
            bury=Burial(core.ledger, core.ingest.commit).bury,
            batch=Batch(core.topics.batch, self._config.uplink.batch_rows),
        )

    async def _group(self, core: Core) -> Group | None:
        """What agrees with other gateways on who owns which node; None: there are none."""
        uplink, topics = core.uplink, core.topics
        uplink.is_watched = lambda topic: not topics.is_command(topic)
        if self._config.group is None:
            return None
        group = Group(
            Terms(**self._config.group.model_dump()),
            self._config.gateway.id,
            core.nodes,
            await generations.load(core.store),
            store=core.store,
            ledger=core.ledger,
            ingest=core.ingest,
            broker=uplink,
            topics=topics,
            clock=self._clock,
            log=self._log,
            forgetful=await generations.forgetful(core.store),
        )
        uplink.watched = topics.of_group()
        uplink.on_watched, uplink.on_connection = group.take, group.connection
        return group

    def _backfill(self, core: Core, group: Group | None) -> Backfill:
        """What asks nodes for their missing numbers."""
        return Backfill(
            core.ingest,
            self._clock,
            self._log,
            first_retry_s=self._config.backfill.first_retry_s,
            last_retry_s=self._config.backfill.last_retry_s,
            session_timeout_s=self._config.ble.session_timeout_s,
            door_s=self._config.backfill.door_s,
            owned=group.owned if group else None,
            reached=group.reached if group else None,
        )

    def _commands(self, core: Core, buses: dict[str, ModbusBus], group: Group | None) -> Commands:
        """What brings commands to their lamps, and their results back."""
        return Commands(
            core.store,
            core.ledger,
            core.ingest,
            self._clock,
            core.topics,
            core.nodes,
            buses,
            self._log,
            retry_s=self._config.commands.retry_s,
            place=group.place if group else None,
        )

    def _tails(self, core: Core, group: Group | None) -> Tails:
        """What says upstream that a node is silent or retired."""
        return Tails(
            core.store,
            core.ledger,
            core.ingest.commit,
            self._clock,
            self._log,
            core.nodes,
            silent_after_s=self._config.watch.silent_after_s,
            ours=group.speaks_for if group else None,
        )

    def _retention(self, core: Core, letters: Letters) -> Retention:
        """What bounds the database."""
        part = self._config.store
        return Retention(
            core.store,
            core.ledger,
            self._clock,
            self._log,
            commit=core.ingest.commit_or_full,
            keep_s=part.keep_days * 86400,
            max_bytes=part.max_mb * _MB,
            letters=letters,
            keep_letters=part.keep_letters,
        )

    def _replayer(self, core: Core, publisher: Publisher, replays: Replays) -> Replayer:
        """What publishes kept rows once more on request."""
        return Replayer(
            replays,
            core.ledger,
            core.payloads,
            core.ingest.commit,
            publisher,
            core.uplink,
            Batch(core.topics.batch, self._config.uplink.batch_rows),
            self._log,
            rows_s=self._config.uplink.replay_rows_s,
        )

    def _route(self, core: Core, commands: Commands, replayer: Replayer) -> None:
        """Let what comes from the broker go to whom it is for."""
        takers = {GATEWAY: replayer.take}
        core.uplink.on_command = lambda incoming: takers.get(
            core.topics.node_of(incoming.topic), commands.take
        )(incoming, core.uplink.ack)

    def _control(
        self, core: Core, publisher: Publisher, letters: Letters, replays: Replays
    ) -> ControlSocket:
        """What answers the command line."""
        situation = Situation(
            self._config,
            self._clock,
            core.store,
            core.ledger,
            core.ingest,
            publisher,
            core.uplink,
            core.nodes,
        )
        backups = Backups(core.store, self._log)
        desk = Desk(letters, replays, core.ingest.commit, situation.now, backups)
        return ControlSocket(self._config.socket_path, desk.answer, self._log)

    def _buses(self, core: Core) -> dict[str, ModbusBus]:
        """The RS-485 buses by name."""
        return {
            part.name: ModbusBus(
                part,
                [node for node in core.nodes if node.bus == part.name],
                core.ingest,
                self._log,
            )
            for part in self._config.bus
        }

    def _wifi(self, core: Core) -> tuple[LocalBroker, NodesMqtt] | None:
        """The gateway's own broker, if it has one, and what takes its messages."""
        part, password = self._config.nodes_mqtt, self._secrets.nodes_password
        if not part.enabled:
            return None
        gateway = self._config.gateway
        broker = LocalBroker(
            part,
            f"kerb-nodes-{gateway.site}-{gateway.id}",
            bundle.up_topic("+"),
            None if password is None else password.get_secret_value(),
            self._log,
        )
        theirs = [node for node in core.nodes if node.wifi]
        return broker, NodesMqtt(broker, theirs, core.ingest, part.window, self._log)

    def _radios(self) -> list[BleLink]:
        """One link for each Bluetooth adapter."""
        return [
            BleLink(
                adapter,
                self._config.ble.scanning,
                self._clock,
                self._log,
                deaf_after_s=self._config.ble.deaf_after_s,
                connect_timeout_s=self._config.ble.connect_timeout_s,
            )
            for adapter in (self._config.ble.adapters if self._config.ble.enabled else [])
        ]
