"""Whose silence must be said by now, and whether what is taken back was said: judged by true time.

Rule: what a gateway may have taken for a sign of life counts as one, and of an earlier process
only the silence that it must have stored; so a silence demanded here is one by any reckoning.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from kerb_tools.simulate.lamp import Lamp

if TYPE_CHECKING:
    from kerb_tools.simulate.house import House
    from kerb_tools.simulate.nodelog import NodeLog
    from kerb_tools.simulate.street import Street

_LOOK_S = 3600.0
_LATE_S = 3600.0  # after the limit: the gateway looks every ten minutes, and then commits
_UNSTORED_S = 6000.0  # of a silence: it is noted within 70 minutes, and committed within 20
_NOTED_S = 1800.0  # shorter silences are not stored
_STORED_S = 1200.0  # so long a sign of life may have waited for its COMMIT
_WORDS = 64  # of a node's newest signs of life: some hours, until a full disk has room again
_NEWEST_EPOCH = (
    "select epoch from streams join nodes using (node_no) where node_id = ? "
    "order by stream_no desc limit 1"
)
_NEWEST = (
    "select stream_no, exists (select 1 from losses l where l.stream_no = s.stream_no "
    "and l.last_seq is null and l.closed_seq is null) from streams s join nodes n "
    "using (node_no) where n.node_id = ? order by stream_no desc limit 1"
)
_STANDING = (
    "select node_id, epoch, first_seq from losses join streams using (stream_no) "
    "join nodes using (node_no) where losses.last_seq is null and closed_seq is null"
)
_Key = tuple[str, str]  # a gateway and a node


class TailBook:
    """The silences of a street, and each gateway's tails."""

    def __init__(self, street: Street) -> None:
        self._street = street
        self._began_s: dict[str, float] = {}  # each living process
        self._heard_s: dict[_Key, float] = {}
        self._stored_s: dict[_Key, float] = {}  # silence that ended processes have surely stored
        self._words: dict[_Key, deque[tuple[int, int]]] = {}  # (epoch, newest number) it spoke of
        self._standing: dict[str, dict[tuple[str, int], int]] = {}  # where each tail begins
        self._said: dict[str, dict[str, Any]] = {}  # by its id: each loss that has arrived
        self._taken_back: dict[str, dict[str, Any]] = {}
        self.opened = 0
        self.closed = 0

    def begin(self) -> None:
        """Look now and then."""
        self._street.timeline.after(_LOOK_S, self._look)

    # --- processes ---

    def began(self, house: House) -> None:
        """A process begins: what earlier ones have stored is all that it knows."""
        self._began_s[house.name] = self._street.timeline.now_s

    def ended(self, house: House) -> None:
        """A process is gone, and with it what it had not stored of the silences."""
        for node_id in self._street.nodes:
            key = (house.name, node_id)
            silence_s = self._silence_s(key) - _UNSTORED_S
            before_s = self._stored_s.get(key, 0.0) if self._only_silent(key) else 0.0
            stored = silence_s >= _NOTED_S and not self._was_full(house, _UNSTORED_S)
            self._stored_s[key] = max(before_s, silence_s if stored else 0.0)
        del self._began_s[house.name]

    def restored(self, house: House) -> None:
        """A gateway knows the silences and tails of an earlier time."""
        for node_id in self._street.nodes:
            self._stored_s[(house.name, node_id)] = 0.0
        rows = house.disk.execute(_STANDING).fetchall()
        self._standing[house.name] = {(node, epoch): first for node, epoch, first in rows}

    def _only_silent(self, key: _Key) -> bool:
        """Tell whether the process has not heard the node at all."""
        return self._heard_s.get(key, -1.0) < self._began_s[key[0]]

    def _silence_s(self, key: _Key) -> float:
        now_s = self._street.timeline.now_s
        if self._only_silent(key):
            return now_s - self._began_s[key[0]] + self._stored_s.get(key, 0.0)
        return now_s - self._heard_s[key]

    def _was_full(self, house: House, since_s: float) -> bool:
        """Tell whether the disk had no room lately: then nothing is stored in time."""
        return house.disk.full_until_s > self._street.timeline.now_s - since_s

    # --- signs of life ---

    def advert(self, house: House, node_id: str, epoch: int, seq: int) -> None:
        """A true advert was heard; one of a number that is stored is no sign of life."""
        self._spoke(
            house, node_id, epoch, seq, lives=seq > house.judge.books.top_seq(node_id, epoch)
        )

    def answer(self, house: House, node_id: str, log: NodeLog) -> None:
        """A node has answered."""
        self._spoke(house, node_id, log.epoch, log.last_seq, lives=True)

    def _spoke(self, house: House, node_id: str, epoch: int, seq: int, *, lives: bool) -> None:
        key = (house.name, node_id)
        words = self._words.get(key)
        if words is None:
            words = self._words[key] = deque(maxlen=_WORDS)
        words.append((epoch, seq))
        if lives:
            self._heard_s[key] = self._street.timeline.now_s

    # --- silences ---

    def _houses(self, node_id: str) -> list[House]:
        """Return whose node it is: all hear a bin."""
        node = self._street.nodes[node_id]
        return [node.house] if isinstance(node, Lamp) else self._street.houses

    def _look(self) -> None:
        street = self._street
        if street.over:
            return
        street.timeline.after(_LOOK_S, self._look)
        for node_id in street.nodes:
            houses = self._houses(node_id)
            if all(self._must_know(house, node_id) for house in houses):
                self._check(node_id, houses)

    def _must_know(self, house: House, node_id: str) -> bool:
        """Tell whether a gateway must know by now that a node is silent."""
        if not house.alive or self._was_full(house, _LATE_S):
            return False
        return self._silence_s((house.name, node_id)) > house.silent_after_s + _LATE_S

    def _check(self, node_id: str, houses: list[House]) -> None:
        """In a group one says it: the node's last owner, which only they know."""
        known = [self._newest(house, node_id) for house in houses]
        if None not in known and not any(known):
            names = " and ".join(house.name for house in houses)
            self._found(houses[0], "a silence without its tail", node_id, f"{names} said nothing")

    def _newest(self, house: House, node_id: str) -> bool | None:
        """Tell whether the tail of a node's newest stream stands; None: it never was heard."""
        row = house.disk.execute(_NEWEST, [node_id]).fetchone()
        return None if row is None else bool(row[1])

    def finish(self) -> None:
        """At last whoever is there has been heard again, and whoever is gone is said to be."""
        street = self._street
        for node_id in street.nodes:
            houses = self._houses(node_id)
            if node_id in street.departures.gone:
                self._check(node_id, houses)
            elif not street.grouped and self._newest(houses[0], node_id):
                self._found(houses[0], "a tail stands", node_id, "though the node was heard")

    # --- what is said, and taken back ---

    def said(self, house: House, node: str, epoch: int, first_seq: int) -> None:
        """A tail is committed."""
        self.opened += 1
        standing = self._standing.setdefault(house.name, {})
        if (node, epoch) in standing:
            self._found(house, "a tail said twice", f"{node}/{epoch}/{first_seq}")
        standing[(node, epoch)] = first_seq
        newest_epoch = house.disk.execute(_NEWEST_EPOCH, [node]).fetchone()[0]
        if epoch == newest_epoch:  # of an older one it is said because a new one began
            self._silence_said(house, node, epoch, first_seq)

    def _silence_said(self, house: House, node: str, epoch: int, first_seq: int) -> None:
        """A node was heard and that is stored: for how long can it have been silent?"""
        since_s = self._street.timeline.now_s - house.judge.books.of(node, epoch).top_s
        limit_s = house.silent_after_s
        if since_s + _STORED_S < limit_s and not self._was_full(house, limit_s):
            name = f"{node}/{epoch}/{first_seq}"
            self._found(house, "a tail said too early", name, f"stored {since_s:.0f} s before")

    def taken_back(self, house: House, message: dict[str, Any]) -> None:
        """A tail's end is committed: its range is what the node's word has shown."""
        node, epoch, last_seq = message["node"], message["epoch"], message["last_seq"]
        name = f"{node}/{epoch}/{message['first_seq']}"
        self.closed += 1
        first_seq = self._standing.get(house.name, {}).pop((node, epoch), None)
        if first_seq is None:
            self._found(house, "taken back, but not said", name)
            return
        if message["first_seq"] != first_seq:
            self._found(house, "another tail taken back", name, f"it begins at {first_seq}")
        # An old answer on the bus shows nothing new.
        words = self._words.get((house.name, node), ())
        on_bus = isinstance(self._street.nodes[node], Lamp)
        if (epoch, last_seq) not in words and not (on_bus and last_seq == first_seq - 1):
            self._found(house, "a tail ends where no word did", name, f"at {last_seq}")

    def first_seq(self, node: str, epoch: int) -> int | None:
        """Return where the longest tail begins that any gateway has said and not taken back."""
        tails = [standing.get((node, epoch)) for standing in self._standing.values()]
        return min((first_seq for first_seq in tails if first_seq is not None), default=None)

    def arrived(self, house: House, message: dict[str, Any]) -> None:
        """A loss record, or one that takes it back, has come upstream."""
        of = message["id"] if message["kind"] == "loss" else message["of"]
        if message["kind"] == "loss":
            self._said[of] = message
        else:
            before = self._taken_back.setdefault(of, message)
            if any(before[name] != message[name] for name in ("first_seq", "last_seq")):
                self._found(house, "taken back twice", of, f"{before} and {message}")
        if of in self._said and of in self._taken_back:  # a loss that was put off comes last
            self._compare(house, self._said[of], self._taken_back[of])

    def _compare(self, house: House, loss: dict[str, Any], found: dict[str, Any]) -> None:
        same = all(loss[name] == found[name] for name in ("node", "epoch", "first_seq", "reason"))
        if not same or loss["last_seq"] not in (None, found["last_seq"]):
            self._found(house, "another loss taken back", found["of"], str(found))

    def _found(self, house: House, kind: str, subject: str, detail: str = "") -> None:
        house.judge.found(kind, subject, detail)
