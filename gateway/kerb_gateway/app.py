"""The composition root: starts what assembly.py has built, and brings it down in order.

Rule: a link that fails restarts alone, with a growing pause; a store that fails ends the process,
because nothing may be acknowledged that is not on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from kerb_gateway.assembly import Assembly, Parts
from kerb_gateway.config import Config, Secrets
from kerb_gateway.errors import LinkDown, StoreError, StoreFull
from kerb_gateway.ingest import REPLAY, TAMPERED, Ingest
from kerb_gateway.links.ble import BleLink
from kerb_gateway.service.notify import notify, watchdog_interval_s
from kerb_gateway.store.claim import Claim
from kerb_gateway.store.database import Store
from kerb_gateway.store.retention import HOUR_S, Retention
from kerb_gateway.timekeeper import BEAT_MS

_RESTART_FIRST_S = 0.5
_RESTART_LAST_S = 60.0
_SETTLE_S = 2.0
_CLAIM_S = 3.0  # how long a command line may hold the database at our start
_GOODBYE_S = 1.0
_BEATS_A_LOOK = 10
_GC_THRESHOLDS = (5_000, 10, 10)


class Gateway(Assembly):
    """One running gateway."""

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
        parts = await self._assemble(store)
        if self._config.control.enabled:
            await parts.control.start()
        parts.core.uplink.start()
        self._log("started", nodes=len(parts.core.nodes), gw_epoch=store.gw_epoch)
        notify("READY=1")
        await self._until_stopped(self._jobs(parts))
        notify("STOPPING=1")
        await self._wind_up(parts)

    def _jobs(self, parts: Parts) -> list[Awaitable[None]]:
        """Return all that runs for as long as the gateway does."""
        core, group, replayer = parts.core, parts.group, parts.replayer
        jobs: list[Awaitable[None]] = [core.ingest.run(), parts.publisher.run()]
        jobs += [parts.commands.run(), self._watchdog(), core.store.failure()]
        jobs += [self._hourly(parts.retention), self._keep_time(core.ingest), parts.tails.run()]
        jobs += [self._keep(link.adapter, link.scan) for link in parts.radios]
        jobs += [self._hear(link, parts) for link in parts.radios]
        jobs += [group.run()] if group else []
        jobs += [self._keep(name, bus.run) for name, bus in parts.buses.items()]
        jobs += [replayer.run(), replayer.accept_for_ever(), parts.control.run()]
        if parts.wifi:
            broker, link = parts.wifi
            jobs += [link.run(), self._keep("nodes_mqtt", broker.run)]
        return jobs

    async def _wind_up(self, parts: Parts) -> None:
        """Take nothing more, make durable what was taken, let go what is in flight."""
        core = parts.core
        await parts.control.stop()
        await parts.backfill.close()
        core.ingest.time.keep_contacts(at_once=True)
        parts.tails.note()
        if parts.group:
            parts.group.leave()
        with contextlib.suppress(TimeoutError):  # a full disk: what waits is fetched again
            async with asyncio.timeout(_SETTLE_S):
                await core.ingest.commit()
        await parts.publisher.settle(_SETTLE_S)
        await core.uplink.stop(_GOODBYE_S)
        await parts.publisher.mark_within(_GOODBYE_S)

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

    async def _hear(self, link: BleLink, parts: Parts) -> None:
        """Take adverts off the link's queue; connect where there is a reason."""
        ingest, group, backfill = parts.core.ingest, parts.group, parts.backfill
        while True:
            heard = await link.queue.get()
            outcome = ingest.advert(heard)
            # A recording is no sign that the node is near: it must not make us claim the node.
            if group and outcome.node and outcome.kind not in (REPLAY, TAMPERED):
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
