"""How far nodes have come: what other gateways say of it, and what this one may say.

Rule: a number counts as delivered only when its outbox row, and every row before it, has ended;
what a node was acknowledged for is not enough, because a gateway that dies takes its outbox
along, and the next owner must fetch from the node what never left.
"""

from __future__ import annotations

from collections.abc import Iterable

from kerb_gateway.model import Stream
from kerb_gateway.peers import OLDER_MAX, Progress

_EPOCHS = OLDER_MAX + 1  # of a node whose delivered numbers are kept in mind

Key = tuple[str, int]  # (node_id, epoch)


class Told:
    """What the owners of nodes have said, the newest generation's word for each."""

    def __init__(self) -> None:
        self._newest: dict[str, Progress] = {}
        self._delivered: dict[str, dict[int, int]] = {}

    def take(self, progress: Progress) -> None:
        """Keep it; delivered numbers only rise, whoever says them."""
        known = self._newest.get(progress.node)
        if known is None or progress.generation >= known.generation:
            self._newest[progress.node] = progress
        epochs = self._delivered.setdefault(progress.node, {})
        for epoch, delivered_seq in (*progress.older, (progress.epoch, progress.delivered_seq)):
            before = epochs.pop(epoch, 0)
            epochs[epoch] = max(before, delivered_seq)
        while len(epochs) > _EPOCHS:
            del epochs[next(iter(epochs))]

    def newest(self, node: str) -> Progress | None:
        """Return what its last owner said of the node."""
        return self._newest.get(node)

    def delivered(self, node: str, epoch: int) -> int:
        """Return the number up to which others have delivered or declared everything."""
        return self._delivered.get(node, {}).get(epoch, 0)

    def last_seq(self, node: str, epoch: int) -> int:
        """Return the newest number that the node's owner has heard of; 0: nobody says."""
        told = self._newest.get(node)
        return told.last_seq if told is not None and told.epoch == epoch else 0


def close_elsewhere(stream: Stream, delivered_seq: int) -> int:
    """Close what is open up to delivered_seq; return how many numbers that were."""
    before = stream.missing()
    stream.close(1, delivered_seq)
    closed = before - stream.missing()
    stream.elsewhere += closed
    return closed


class Deliveries:
    """Finds how far each stream is delivered, by outbox rows; cheap, one look at a time."""

    def __init__(self) -> None:
        self._pending: dict[Key, int] = {}
        self._pending_no = 0
        self._passed = False
        self._known: dict[Key, int] = {}

    def look(self, streams: Iterable[Stream], outbox_last: int, outbox_done: int) -> None:
        """Note what is accounted for now; it counts once the outbox has passed outbox_last.

        outbox_last: the highest number that any row has; outbox_done: all up to it have ended.
        """
        if outbox_done < self._pending_no:
            return
        if outbox_last > self._pending_no and not self._passed:
            # Rows that were refused, or given up, ended with a loss record behind the last one.
            self._pending_no, self._passed = outbox_last, True
            return
        self._known = self._pending
        self._pending = {
            (stream.node.node_id, stream.epoch): stream.accounted_seq() for stream in streams
        }
        self._pending_no, self._passed = outbox_last, False

    def delivered(self, stream: Stream) -> int:
        """Return the number up to which everything of the stream is upstream or declared."""
        return self._known.get((stream.node.node_id, stream.epoch), 0)
