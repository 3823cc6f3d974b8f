"""How a running gateway is: what an operator asks first.

Rule: it reads what the parts know and two small tables; it changes nothing and costs nothing until
somebody asks.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from typing import Any

from kerb_gateway.clock import Clock
from kerb_gateway.config import Config
from kerb_gateway.ingest import Ingest
from kerb_gateway.model import Node, Stream
from kerb_gateway.publisher import Publisher
from kerb_gateway.store.database import Store
from kerb_gateway.store.ledger import Ledger
from kerb_gateway.uplink.mqtt import Uplink


class Situation:
    """The parts of a gateway, to be looked at."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        store: Store,
        ledger: Ledger,
        ingest: Ingest,
        publisher: Publisher,
        uplink: Uplink,
        nodes: list[Node],
    ) -> None:
        self._config = config
        self._clock = clock
        self._store = store
        self._ledger = ledger
        self._ingest = ingest
        self._publisher = publisher
        self._uplink = uplink
        self._nodes = nodes
        self._began_ms = clock.boottime_ms()

    async def now(self) -> dict[str, Any]:
        """Return everything as plain values; ages in seconds."""
        now_ms = self._clock.boottime_ms()
        return {
            "gateway": self._config.gateway.id,
            "site": self._config.gateway.site,
            "version": version("kerbstone"),
            "gw_epoch": self._store.gw_epoch,
            "uptime_s": round((now_ms - self._began_ms) / 1000, 1),
            "uplink": self._uplink_state(),
            "outbox": await self._outbox(),
            "disk": await self._disk(),
            "nodes": [self._node(node, now_ms) for node in self._nodes],
            "counters": await self._counters(),
        }

    def _uplink_state(self) -> dict[str, Any]:
        return {
            "connected": self._uplink.connected.is_set(),
            "host": self._config.uplink.host,
            "port": self._config.uplink.port,
            "protocol": self._uplink.protocol,
            "no_room": self._publisher.has_no_room,
        }

    async def _outbox(self) -> dict[str, Any]:
        done, last = self._ledger.outbox.done, self._ledger.last_outbox_no
        (row,) = await self._store.query(
            "select (select count(*) from dead_letters), "
            "(select count(*) from replays where state = 'open')"
        )
        return {
            "last_no": last,
            "done_no": done,
            "waiting": last - done,
            "not_committed": self._ledger.waiting,
            "delivered": self._publisher.delivered,
            "unheard": self._publisher.unheard,
            "dead_letters": row[0],
            "replays_open": row[1],
        }

    async def _disk(self) -> dict[str, Any]:
        (row,) = await self._store.query(
            "select (page_count - freelist_count) * page_size from pragma_page_count(), "
            "pragma_freelist_count(), pragma_page_size()"
        )
        path = self._config.store.path
        return {
            "database": str(path),
            "used_bytes": row[0],
            "max_bytes": self._config.store.max_mb * 1024 * 1024,
            "free_bytes": shutil.disk_usage(path.parent).free,
            "full": self._ingest.full,
        }

    def _node(self, node: Node, now_ms: int) -> dict[str, Any]:
        stream = self._ledger.newest_stream(node.node_id)
        common = {"node": node.node_id, "role": node.role}
        return common | (_NEVER if stream is None else _account(stream, now_ms))

    async def _counters(self) -> dict[str, int]:
        rows = await self._store.query(
            "select name, sum(value) from counters group by name order by name"
        )
        return {row[0]: row[1] for row in rows}


_NEVER: dict[str, Any] = {
    "epoch": None,
    "last_seq": 0,
    "contact_age_s": None,
    "in_gaps": 0,
    "lost": 0,
    "backlog": None,
    "tail": False,
    "held": False,
}


def _account(stream: Stream, now_ms: int) -> dict[str, Any]:
    contact = stream.contact_ms
    return {
        "epoch": stream.epoch,
        "last_seq": stream.last_seq,
        "contact_age_s": None if contact is None else round((now_ms - contact) / 1000, 1),
        "in_gaps": stream.missing(),
        "lost": stream.lost,
        "backlog": stream.backlog,
        "tail": stream.tail_no is not None,
        "held": stream.held,
    }
