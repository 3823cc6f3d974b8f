"""Verify, classify by sequence, store: the one way by which a reading enters the gateway.

Rule: a node is acknowledged only after the COMMIT that holds its readings, their outbox rows, the
stream's watermark and its gaps together.

The table of classes is docs/architecture.md, "Sequence rules".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerb_wire import advert, bthome, keys, records, words
from kerb_wire.errors import MIC, RemoteFault
from kerb_wire.limits import JUMP_LIMIT
from kerb_wire.provisioning import address_of

from kerb_gateway import columns
from kerb_gateway.clock import Clock, Moment
from kerb_gateway.crypto import Decrypt, ccm_opener, new_ecb
from kerb_gateway.elsewhere import Elsewhere
from kerb_gateway.errors import StoreFull
from kerb_gateway.guard import Guard
from kerb_gateway.model import Gap, Heard, Loss, Node, Reading, Stream
from kerb_gateway.store.ballast import Ballast
from kerb_gateway.store.ledger import TAIL, Ledger
from kerb_gateway.timekeeper import Timekeeper
from kerb_gateway.timeline import DOOR_S

Log = Callable[..., Any]

_DIGEST_BYTES = 8
_FULL_ROWS = 20000  # rows in memory beyond which nothing is taken while the disk is full

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
FILLED = "filled"  # stored into an open gap by an authenticated answer
HELD_BACK = "held_back"  # a live advert inside a gap: backfill will fetch it
REPLAY = "replay"
TAMPERED = "tampered"  # a known number with other content
NO_ROOM = "no_room"
NOT_VERIFIED = "not_verified"  # too many wrong MICs of its address
QUARANTINED = "quarantined"  # a session must confirm it: a great jump, or after a restore


@dataclass(frozen=True)
class Outcome:
    """What became of an advert; `reading` only when its MIC was right."""

    kind: str
    node: Node | None = None
    stream: Stream | None = None
    reading: Any = None


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def classify(stream: Stream, seq: int, digest: bytes, *, authenticated: bool) -> str:
    """Return what to do with number `seq` of a stream; changes nothing.

    authenticated: it came in a session or over a polled bus, not as an unacknowledged advert.
    """
    if stream.held and not authenticated:
        return QUARANTINED  # a restored watermark is old: a recording would seem new
    if seq > stream.last_seq:
        if seq - stream.last_seq > JUMP_LIMIT and not authenticated:
            return QUARANTINED
        return ACCEPTED
    if stream.in_gap(seq):
        return FILLED if authenticated else HELD_BACK
    known = stream.recent.get(seq)
    if known is not None:
        return DUPLICATE if known == digest else TAMPERED
    return DUPLICATE if authenticated else REPLAY


class Ingest:
    """Adverts and records in, one transaction a batch out."""

    def __init__(
        self,
        ledger: Ledger,
        nodes: list[Node],
        clock: Clock,
        log: Log,
        *,
        commit_interval_s: float,
        commit_rows: int,
        ballast: Ballast | None = None,
        full_retry_s: float = 5.0,
        door_s: float = DOOR_S,
        guard: Guard | None = None,
    ) -> None:
        """ballast: what to throw off when the disk is full; door_s: how long an advert is sent;
        guard: against forged adverts.
        """
        self._guard = guard or Guard(limit=8, window_s=3600)
        self._ledger = ledger
        self._clock = clock
        self._log = log
        self._interval_s = commit_interval_s
        self._rows = commit_rows
        self._by_address = {_address_text(node): node for node in nodes}
        self._advert_openers: dict[tuple[str, int], Decrypt] = {}
        self._lock = asyncio.Lock()
        self._writing = False  # a batch is on its way to the disk
        self._due = asyncio.Event()
        self._ballast = ballast
        self._full_retry_s = full_retry_s
        self.time = Timekeeper(ledger, clock, log, door_s)
        self.full = False  # the disk is: what is heard waits in memory, within a bound
        self._alarmed = False
        self.commits = 0
        self.after_commit: list[Callable[[], None]] = []  # links that acknowledge
        self.committed = asyncio.Event()  # set after each commit: the publisher has work
        self.suspect: set[str] = set()  # node ids whose epoch must be asked for in a session
        self.elsewhere = Elsewhere(ledger)  # what other gateways say of nodes

    def ended(self, stream: Stream) -> list[Stream]:
        """Return the node's earlier epochs of which numbers are still missing, oldest first."""
        return [one for one in self._ledger.older_streams(stream) if one.gaps]

    def node_of(self, address: str) -> Node | None:
        """Return the configured node that advertises with `address`."""
        return self._by_address.get(address)

    def count(self, name: str, node_no: int = 0) -> None:
        """Count what a link has met; 0: no particular node."""
        self._ledger.count(name, node_no)

    def give_up_ended(self, stream: Stream) -> None:
        """Declare lost what is missing of a node's earlier epochs, which it is not asked for."""
        for ended in self.ended(stream):
            for first_seq, last_seq in ended.ranges():
                self._declare(ended, first_seq, last_seq, TAIL)

    # --- adverts ---

    def advert(self, heard: Heard) -> Outcome:
        """Take one advert; never raises for what is on the air."""
        node = self._by_address.get(heard.address)
        if node is None:
            self._ledger.count("advert of an unknown node")
            return Outcome("unknown")
        if self.full and self._ledger.waiting > _FULL_ROWS:
            self._ledger.count("advert not taken: disk full", node.node_no)
            return Outcome(NO_ROOM, node)  # its number becomes a gap, and backfill brings it
        stream = self._ledger.newest_stream(node.node_id)
        if stream is None:
            self.suspect.add(node.node_id)
            return self._by_told_epoch(heard, node) or Outcome("no epoch", node)
        if not self._guard.idle and self._guard.closed(heard.address, heard.boottime_ms):
            return self._not_verified(heard, node, stream)
        try:
            seq, plaintext, reading = self._open(heard, stream)
        except RemoteFault as fault:
            outcome = self._by_told_epoch(heard, node) if fault.reason == MIC else None
            return outcome or self._refuse(heard, node, stream, fault)
        return self._sort(heard, stream, seq, plaintext, reading)

    def _by_told_epoch(self, heard: Heard, node: Node) -> Outcome | None:
        """Try the epoch that the node's owner in the group has named, if it has."""
        candidate = self.elsewhere.candidate(node)
        if candidate is None or node.node_id in self._ledger.held:
            return None
        try:
            seq, plaintext, reading = self._open(heard, candidate)
        except RemoteFault:
            return None
        self.suspect.discard(node.node_id)
        stream = self.elsewhere.begin(node, candidate.epoch)
        return self._sort(heard, stream, seq, plaintext, reading)

    def _open(self, heard: Heard, stream: Stream) -> tuple[int, bytes, Any]:
        address = bytes.fromhex(heard.address.replace(":", ""))
        seq, plaintext = bthome.unseal_with(self._opener(stream), address, heard.service_data)
        return seq, plaintext, advert.reading_of(plaintext)

    def _opener(self, stream: Stream) -> Decrypt:
        key = (stream.node.node_id, stream.epoch)
        if key not in self._advert_openers:
            self._advert_openers[key] = ccm_opener(
                keys.advert_key(new_ecb, stream.node.root_key, stream.epoch), bthome.MIC_BYTES
            )
        return self._advert_openers[key]

    def _not_verified(self, heard: Heard, node: Node, stream: Stream) -> Outcome:
        """Under a flood of forgeries the node itself is asked, in sessions, not its adverts."""
        self._ledger.count("advert not verified: too many wrong MICs", node.node_no)
        if self._guard.asks(heard.address, heard.boottime_ms):
            self.suspect.add(node.node_id)
        return Outcome(NOT_VERIFIED, node, stream)

    def _refuse(self, heard: Heard, node: Node, stream: Stream, fault: RemoteFault) -> Outcome:
        """A wrong MIC is a forgery, damage, or a node with a new epoch: a session will tell."""
        self._ledger.count(
            "advert with a wrong MIC" if fault.reason == MIC else "malformed advert", node.node_no
        )
        if fault.reason == MIC:
            self.suspect.add(node.node_id)
            number = self._guard.wrong(heard.address, heard.boottime_ms)
            if number and number & (number - 1) == 0:  # the 1st, 2nd, 4th, 8th ... in a row
                self._log("too many wrong MICs", node=node.node_id, windows_in_a_row=number)
        return Outcome("refused", node, stream)

    def _sort(
        self, heard: Heard, stream: Stream, seq: int, plaintext: bytes, reading: Any
    ) -> Outcome:
        digest = _digest(plaintext)
        kind = classify(stream, seq, digest, authenticated=False)
        if kind == QUARANTINED:
            self.elsewhere.skip(stream)
            kind = classify(stream, seq, digest, authenticated=False)
        if kind == ACCEPTED:
            self._accept(stream, seq, digest)
            self.elsewhere.close(stream)
            self._store_advert(stream, seq, digest, reading, heard.boottime_ms)
            stream.backlog = reading.backlog
            self._contact(stream, heard.boottime_ms)
        elif kind != DUPLICATE:
            self._ledger.count(kind, stream.node.node_no)
            if kind in (REPLAY, TAMPERED, QUARANTINED):
                self._log(
                    "advert refused",
                    node=stream.node.node_id,
                    why=kind,
                    seq=seq,
                    last_seq=stream.last_seq,
                    adapter=heard.adapter,
                )
            if kind == QUARANTINED and not stream.held:
                self.suspect.add(stream.node.node_id)
        else:
            self._ledger.count(DUPLICATE, stream.node.node_no)
        return Outcome(kind, stream.node, stream, reading)

    def _contact(self, stream: Stream, boottime_ms: int) -> None:
        """The node itself was heard: a number that is new, or an answer to us."""
        stream.contact_ms = max(boottime_ms, stream.contact_ms or 0)
        if stream.silence_noted:
            self._ledger.end_silence(stream)
        if stream.tail_no is not None:
            self._ledger.close_tail(stream)

    def _accept(self, stream: Stream, seq: int, digest: bytes) -> None:
        """Move the watermark; what was skipped becomes one gap."""
        if seq > stream.last_seq + 1:
            stream.gaps.append(Gap(stream.last_seq + 1, seq - 1))
        stream.last_seq = seq
        stream.remember(seq, digest)

    def _store_advert(
        self, stream: Stream, seq: int, digest: bytes, reading: Any, heard_ms: int
    ) -> None:
        moment = self._clock.now()
        made = self.time.of_advert(
            stream, seq, heard_ms, moment, repeated=bool(reading.flags & words.FLAG_SERVICE)
        )
        place = columns.Place(self._ledger.next_reading_no, stream, seq, moment, made)
        self._add(stream, columns.fill(place, columns.Source("advert", "mic", digest), reading))
        if reading.event:
            self.hurry()

    # --- authenticated records ---

    async def epoch(
        self, node: Node, epoch: int, last_seq: int, *, contact: bool = True
    ) -> Stream:
        """Take over what an authenticated HELLO says; returns the stream of that epoch.

        A new epoch ends the old stream: its unheard tail becomes an open-ended loss record.
        contact: the node itself said so just now; no message that may be a recording.
        """
        heard_ms = self._clock.boottime_ms()  # a commit that waits for room can keep us for hours
        async with self._lock:
            self.suspect.discard(node.node_id)
            stream = self._ledger.streams.get((node.node_id, epoch))
            if stream is None:
                old = self._ledger.newest_stream(node.node_id)
                ended = [] if old is None else [old]
                for one in ended + self.elsewhere.ended(node, epoch):
                    self._ledger.open_tail(one, self._clock.now())
                stream = self._ledger.begin_stream(node, epoch)
                self._guard.forgive(_address_text(node))  # it was itself, with a new key
            self._ledger.release(node)
            if last_seq > stream.last_seq:
                stream.gaps.append(Gap(stream.last_seq + 1, last_seq))
                stream.last_seq = last_seq
                self.elsewhere.close(stream)
                self._ledger.touch(stream)
            if contact:
                self._contact(stream, heard_ms)
            return stream

    def record(
        self, stream: Stream, packed: bytes, *, via: str, auth: str, contact: bool = False
    ) -> str:
        """Take one packed record of an answer; returns its class. RemoteFault if it is damaged.

        contact: a number that is new says that its node was there just now.
        """
        row = records.unpack(packed)
        if row.kind == records.LOST:
            return self._lost(stream, row)
        digest = _digest(_content(row, packed, stream.epoch))
        kind = classify(stream, row.seq, digest, authenticated=True)
        if kind in (ACCEPTED, FILLED):
            if kind == ACCEPTED:
                self._accept(stream, row.seq, digest)
            else:
                stream.close(row.seq, row.seq)
                stream.remember(row.seq, digest)
            moment = self._clock.now()
            source = columns.Source(via, auth, digest, packed, row.boot_no, row.uptime_s)
            self._store_record(stream, row, source, moment)
            if contact:
                self._contact(stream, moment.boottime_ms)
        else:
            self._ledger.count(f"record {kind}", stream.node.node_no)
        return kind

    def _store_record(
        self, stream: Stream, row: Any, source: columns.Source, moment: Moment
    ) -> None:
        made = self.time.of_record(stream, row, moment)
        place = columns.Place(self._ledger.next_reading_no, stream, row.seq, moment, made)
        make = columns.fill if row.kind == records.FILL else columns.lamp
        self._add(stream, make(place, source, row))

    def _lost(self, stream: Stream, row: Any) -> str:
        """Declare what is still open of seq..last_seq lost, with the node's own reason."""
        if row.last_seq > stream.last_seq:
            # What lies between is not lost, only unheard: it is in the gap that stays open.
            stream.gaps.append(Gap(stream.last_seq + 1, row.last_seq))
            stream.last_seq = row.last_seq
        open_ranges = [
            (max(gap.first_seq, row.seq), min(gap.last_seq, row.last_seq))
            for gap in stream.gaps
            if gap.first_seq <= row.last_seq and gap.last_seq >= row.seq
        ]
        for first_seq, last_seq in open_ranges:
            self._declare(stream, first_seq, last_seq, words.LOSSES[row.reason])
        return "lost"

    def _declare(self, stream: Stream, first_seq: int, last_seq: int, reason: str) -> None:
        stream.close(first_seq, last_seq)
        self._ledger.add_loss(Loss(stream, first_seq, last_seq, reason), self._clock.now())

    def _add(self, stream: Stream, reading: Reading) -> None:
        self._ledger.add_reading(stream, reading)
        if self._ledger.waiting >= 2 * self._rows:
            self.hurry()

    # --- commits ---

    @property
    def durable_at(self) -> int:
        """The value of `commits` from which on everything that was taken so far is durable.

        A commit that is running holds only what was taken before it began.
        """
        return self.commits + (2 if self._writing else 1)

    def hurry(self) -> None:
        """Commit at the next turn instead of at the interval's end."""
        self._due.set()

    async def commit(self) -> None:
        """Commit what is waiting, now; what it held is durable when this returns.

        While the disk is full this waits for room: who acknowledges after it, does not.
        """
        async with self._lock:
            self.time.keep_contacts()
            while self._ledger.waiting:
                try:
                    await self._commit_once()
                except StoreFull as error:
                    await self._wait_for_room(error)

    async def commit_or_full(self) -> None:
        """Commit what is waiting, in its turn; StoreFull when the disk has no room."""
        async with self._lock:
            await self._commit_once()

    async def _commit_once(self) -> None:
        """Commit, and let memory know, whole: a session's timeout may cancel who waits for it.

        A write that runs is not stopped by that; what becomes of it must still be noted, before
        the next one begins.
        """
        task = asyncio.ensure_future(self._commit_and_tell())
        cancel: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancel = error
        if cancel is not None:
            if not task.cancelled():
                task.exception()  # looked at: full, and all still waits, or the store has failed
            raise cancel
        task.result()

    async def _commit_and_tell(self) -> None:
        self._writing = True
        try:
            await self._ledger.commit()
        finally:
            self._writing = False
        self.commits += 1
        self.committed.set()
        for tell in self.after_commit:
            tell()
        self.full = False
        if self._alarmed:
            self._room_again()

    async def _wait_for_room(self, error: StoreFull) -> None:
        dropped = self._ballast is not None and self._ballast.drop()
        self.full = True
        if not self._alarmed:
            self._alarmed = True
            self._ledger.count("disk full")
            self._ledger.add_alarm("gateway", {"what": "disk full", "ballast_freed": dropped})
            self._log("disk full: nothing is acknowledged", why=str(error), ballast_freed=dropped)
        if not dropped:
            await asyncio.sleep(self._full_retry_s)

    def _room_again(self) -> None:
        """The alarm is over when there is room for a ballast again, not sooner."""
        if self._ballast is None or self._ballast.load():
            self._alarmed = False
            self._log("disk has room again")

    async def run(self) -> None:
        """Commit every interval, or sooner when an event or a full batch asks for it."""
        while True:
            # Not wait_for: in Python 3.11 it forgets a cancel that comes together with the event.
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            await self.commit()


def _address_text(node: Node) -> str:
    return ":".join(f"{octet:02X}" for octet in address_of(bytes.fromhex(node.node_id)))


def _content(row: Any, packed: bytes, epoch: int) -> bytes:
    """Return what a digest is taken of: for a fill record, its advert's own bytes."""
    return packed if row.kind != records.FILL else advert.objects_of_packed(packed, epoch)
