"""The composition root: builds the parts, starts them, and brings them down in order.

Rule: a link that fails restarts alone, with a growing pause; a store that fails ends the process,
because nothing may be acknowledged that is not on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kerb_wire import bundle

from kerb_gateway.backfill import Backfill
from kerb_gateway.backups import Backups
from kerb_gateway.clock import SystemClock
from kerb_gateway.commands import Commands
from kerb_gateway.config import Config, Secrets
from kerb_gateway.desk import Desk
from kerb_gateway.errors import LinkDown, StoreError, StoreFull
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
from kerb_gateway.service.notify import notify, watchdog_interval_s
from kerb_gateway.status import Situation
from kerb_gateway.store import leases as generations
from kerb_gateway.store import restore
from kerb_gateway.store.ballast import Ballast
from kerb_gateway.store.claim import Claim
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.store.letters import Letters
from kerb_gateway.store.outbox import Outgoing
from kerb_gateway.store.replays import GATEWAY, Replays
from kerb_gateway.store.retention import HOUR_S, Retention
from kerb_gateway.tails import Tails
from kerb_gateway.timekeeper import BEAT_MS
from kerb_gateway.uplink.mqtt import Uplink
from kerb_gateway.uplink.payloads.native import NativePayloads
from kerb_gateway.uplink.topics import Topics

_RESTART_FIRST_S = 0.5
_RESTART_LAST_S = 60.0
_SETTLE_S = 2.0
_CLAIM_S = 3.0  # how long a command line may hold the database at our start
_GOODBYE_S = 1.0
_BEATS_A_LOOK = 10
_MB = 1024 * 1024
_GC_THRESHOLDS = (5_000, 10, 10)


class Gateway:
    """One running gateway."""

    def __init__(self, config: Config, secrets: Secrets, logger: Any) -> None:
        self._config = config
        self._secrets = secrets
        self._logger = logger
        self._clock = SystemClock()
        self._stop = asyncio.Event()

    def _log(self, event: str, **fields: Any) -> None:
        say = self._logger.warning if event in WARNINGS else self._logger.info
        say(event, **fields)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; StoreError when the database cannot be written."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        claim = Claim(self._config.store.path)
        await claim.wait(_CLAIM_S)
        store = Store(self._config.store.path)
        await store.open()
        try:
            await self._with_store(store)
        finally:
            await store.close()
            claim.give_back()
        self._log("stopped")

    async def _with_store(self, store: Store) -> None:
        config = self._config
        grouped = config.group is not None
        topics = Topics(config.gateway.site, config.gateway.id, grouped=grouped)
        payloads = NativePayloads(topics, store.gw_epoch)
        nodes = await self._nodes(store)
        ledger = await Ledger.load(store, payloads, nodes, self._log)
        payloads.offsets = ledger.anchors
        if store.put_aside is not None:
            aside = {"file": store.put_aside.name, "gw_epoch": store.gw_epoch}
            self._log("damaged database put aside, begun anew", **aside)
            ledger.add_alarm("gateway", {"what": "damaged database put aside"} | aside)
        await self._said_of_restores(store, ledger)
        ingest = self._ingest(ledger, nodes)
        uplink = self._uplink(topics)

        async def bury(message: Outgoing, reason: str) -> None:
            ledger.bury(message, reason)
            await ingest.commit()

        publisher = Publisher(
            ledger.outbox,
            uplink,
            ingest.committed,
            self._log,
            in_flight=config.uplink.in_flight,
            mark_s=config.store.commit_interval_s,
            bury=bury,
            batch=Batch(topics.batch, config.uplink.batch_rows),
        )
        group = await self._group(store, ledger, ingest, uplink, topics, nodes)
        backfill = self._backfill(ingest, group)
        buses = self._buses(ingest, nodes)
        commands = Commands(
            store,
            ledger,
            ingest,
            self._clock,
            topics,
            nodes,
            buses,
            self._log,
            retry_s=config.commands.retry_s,
            place=group.place if group else None,
        )
        await commands.resume()
        tails = self._tails(store, ledger, ingest, nodes, group)
        await tails.begin()
        links = self._radios()
        letters = Letters(store, ledger, self._clock)
        retention = Retention(
            store,
            ledger,
            self._clock,
            self._log,
            commit=ingest.commit_or_full,
            keep_s=config.store.keep_days * 86400,
            max_bytes=config.store.max_mb * _MB,
            letters=letters,
            keep_letters=config.store.keep_letters,
        )
        jobs = [ingest.run(), publisher.run(), commands.run(), self._watchdog(), store.failure()]
        jobs += [self._hourly(retention), self._keep_time(ingest), tails.run()]
        jobs += [self._keep(link.adapter, link.scan) for link in links]
        jobs += [self._hear(link, ingest, backfill, group) for link in links]
        jobs += [group.run()] if group else []
        jobs += [self._keep(name, bus.run) for name, bus in buses.items()]
        replays = Replays(store, ledger)
        replayer = self._replayer(replays, ledger, payloads, ingest, publisher, uplink, topics)
        jobs += [replayer.run(), replayer.accept_for_ever()]
        takers = {GATEWAY: replayer.take}
        uplink.on_command = lambda incoming: takers.get(
            topics.node_of(incoming.topic), commands.take
        )(incoming, uplink.ack)
        situation = Situation(config, self._clock, store, ledger, ingest, publisher, uplink, nodes)
        backups = Backups(store, self._log)
        desk = Desk(letters, replays, ingest.commit, situation.now, backups)
        control = ControlSocket(config.socket_path, desk.answer, self._log)
        jobs += [control.run()]
        if config.control.enabled:
            await control.start()
        jobs += self._wifi_nodes(ingest, nodes)
        uplink.start()
        self._log("started", nodes=len(nodes), gw_epoch=store.gw_epoch)
        notify("READY=1")
        await self._until_stopped(jobs)
        notify("STOPPING=1")
        await control.stop()
        await backfill.close()
        ingest.time.keep_contacts(at_once=True)
        tails.note()
        if group:
            group.leave()
        with contextlib.suppress(TimeoutError):  # a full disk: what waits is fetched again
            async with asyncio.timeout(_SETTLE_S):
                await ingest.commit()
        await publisher.settle(_SETTLE_S)
        await uplink.stop(_GOODBYE_S)
        await publisher.mark()

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

    async def _group(
        self,
        store: Store,
        ledger: Ledger,
        ingest: Ingest,
        uplink: Uplink,
        topics: Topics,
        nodes: list[Node],
    ) -> Group | None:
        """What agrees with other gateways on who owns which node; None: there are none."""
        uplink.is_watched = lambda topic: not topics.is_command(topic)
        if self._config.group is None:
            return None
        group = Group(
            Terms(**self._config.group.model_dump()),
            self._config.gateway.id,
            nodes,
            await generations.load(store),
            store=store,
            ledger=ledger,
            ingest=ingest,
            broker=uplink,
            topics=topics,
            clock=self._clock,
            log=self._log,
        )
        uplink.watched = topics.of_group()
        uplink.on_watched, uplink.on_connection = group.take, group.connection
        return group

    def _backfill(self, ingest: Ingest, group: Group | None) -> Backfill:
        """What asks nodes for their missing numbers."""
        return Backfill(
            ingest,
            self._clock,
            self._log,
            first_retry_s=self._config.backfill.first_retry_s,
            last_retry_s=self._config.backfill.last_retry_s,
            session_timeout_s=self._config.ble.session_timeout_s,
            door_s=self._config.backfill.door_s,
            owned=group.owned if group else None,
            reached=group.reached if group else None,
        )

    def _tails(
        self,
        store: Store,
        ledger: Ledger,
        ingest: Ingest,
        nodes: list[Node],
        group: Group | None,
    ) -> Tails:
        """What says upstream that a node is silent or retired."""
        return Tails(
            store,
            ledger,
            ingest.commit,
            self._clock,
            self._log,
            nodes,
            silent_after_s=self._config.watch.silent_after_s,
            owned=group.owned if group else None,
        )

    def _replayer(
        self,
        replays: Replays,
        ledger: Ledger,
        payloads: NativePayloads,
        ingest: Ingest,
        publisher: Publisher,
        uplink: Uplink,
        topics: Topics,
    ) -> Replayer:
        """What publishes kept rows once more on request."""
        return Replayer(
            replays,
            ledger,
            payloads,
            ingest.commit,
            publisher,
            uplink,
            Batch(topics.batch, self._config.uplink.batch_rows),
            self._log,
            rows_s=self._config.uplink.replay_rows_s,
        )

    def _buses(self, ingest: Ingest, nodes: list[Node]) -> dict[str, ModbusBus]:
        """The RS-485 buses by name."""
        return {
            part.name: ModbusBus(
                part, [node for node in nodes if node.bus == part.name], ingest, self._log
            )
            for part in self._config.bus
        }

    def _wifi_nodes(self, ingest: Ingest, nodes: list[Node]) -> list[Coroutine[Any, Any, None]]:
        """The jobs of the gateway's own broker, if it has one."""
        part, password = self._config.nodes_mqtt, self._secrets.nodes_password
        if not part.enabled:
            return []
        mine = {one.node_id for one in self._config.nodes if one.link == "mqtt"}
        gateway = self._config.gateway
        broker = LocalBroker(
            part,
            f"kerb-nodes-{gateway.site}-{gateway.id}",
            bundle.up_topic("+"),
            None if password is None else password.get_secret_value(),
            self._log,
        )
        theirs = [node for node in nodes if node.node_id in mine]
        link = NodesMqtt(broker, theirs, ingest, part.window, self._log)
        return [link.run(), self._keep("nodes_mqtt", broker.run)]

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

    async def _until_stopped(self, jobs: list[Any]) -> None:
        """Run the jobs until a stop is asked for; the first that fails ends all."""
        tasks = [asyncio.ensure_future(job) for job in jobs]
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in [stop, *tasks]:
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)

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
            )
            for part in self._config.nodes
        ]

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

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a link; when it goes down, start it again after a pause that grows."""
        pause_s = _RESTART_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            with contextlib.suppress(asyncio.TimeoutError):
                try:
                    await run()
                except LinkDown as error:
                    self._log("link down", link=name, why=str(error), restart_s=pause_s)
            if loop.time() - began > _RESTART_LAST_S:
                pause_s = _RESTART_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(_RESTART_LAST_S, pause_s * 2)

    async def _hear(
        self, link: BleLink, ingest: Ingest, backfill: Backfill, group: Group | None
    ) -> None:
        """Take adverts off the link's queue; connect where there is a reason."""
        while True:
            heard = await link.queue.get()
            outcome = ingest.advert(heard)
            if group and outcome.node:
                group.heard(outcome.node.node_id, heard.rssi)
            backfill.consider(heard, outcome, link.converse)

    async def _hourly(self, retention: Retention) -> None:
        while True:
            await asyncio.sleep(HOUR_S)
            try:
                await retention.hour()
            except StoreFull:
                self._log("no room to remove old rows in: tried again in an hour")

    async def _keep_time(self, ingest: Ingest) -> None:
        """Beat, and look now and then whether somebody keeps the wall clock right by now."""
        while True:
            ingest.time.look()
            for _ in range(_BEATS_A_LOOK):
                ingest.time.beat()
                await asyncio.sleep(BEAT_MS / 1000)

    async def _watchdog(self) -> None:
        interval_s = watchdog_interval_s()
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval_s or 3600)


async def serve(config: Config, secrets: Secrets, logger: Any) -> int:
    """Run a gateway; return the process's exit status."""
    # What was imported lives as long as the process: the collector need not look at it again and
    # again, and readings make no cycles, so it may look seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        await Gateway(config, secrets, logger).run()
    except StoreError as error:
        logger.error(
            "the database cannot be used: nothing is acknowledged; exiting",
            path=str(config.store.path),
            why=str(error),
        )
        return 1
    return 0
