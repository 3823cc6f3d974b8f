"""What other gateways have heard of a node, applied to this gateway's own account of it.

Rule: a peer's word opens gaps and closes them, and never stores a reading; an epoch that it names
counts only when an advert's MIC proves it, or when the node itself is in a newer one by its own
word: then it was one, and is over. No tail of an epoch that this gateway has heard is declared
unknown here: who owns the node has heard its end, or asks the node for it.
"""

from __future__ import annotations

from kerb_gateway.model import Gap, Node, Stream
from kerb_gateway.peers import Progress
from kerb_gateway.progress import Told, close_elsewhere
from kerb_gateway.store.ledger import Ledger


class Elsewhere:
    """The group's knowledge; without a group it is empty and changes nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._told = Told()

    def hear_of(self, progress: Progress) -> None:
        """Take what a node's owner says of it, of the epochs before too."""
        self._told.take(progress)
        for epoch in (progress.epoch, *(epoch for epoch, _ in progress.older)):
            stream = self._ledger.streams.get((progress.node, epoch))
            if stream is not None:
                self.close(stream)

    def candidate(self, node: Node) -> Stream | None:
        """Return a stream, not yet begun, of an epoch that only the owner has named."""
        told = self._told.newest(node.node_id)
        if told is None or (node.node_id, told.epoch) in self._ledger.streams:
            return None
        return Stream(0, node, told.epoch)

    def begin(self, node: Node, epoch: int) -> Stream:
        """Begin the stream that an advert has proved."""
        return self._take_over(node, epoch, self._told.last_seq(node.node_id, epoch))

    def ended(self, node: Node, epoch: int) -> list[Stream]:
        """Begin the streams that the node's last owner spoke of and this gateway never heard.

        epoch: where the node is by its own word just now, in a session. A gateway that was
        restored, is new or was out of reach would else neither ask for those before it nor say
        their end. Of older ones the owner says only up to where it is sure of them.
        """
        told = self._told.newest(node.node_id)
        if told is None:
            return []
        ended = {**dict(told.older), told.epoch: told.last_seq}
        ended.pop(epoch, None)
        return [
            self._take_over(node, one, last_seq)
            for one, last_seq in ended.items()
            if (node.node_id, one) not in self._ledger.streams
        ]

    def _take_over(self, node: Node, epoch: int, last_seq: int) -> Stream:
        stream = self._ledger.begin_stream(node, epoch)
        self._skip_to(stream, last_seq)
        return stream

    def skip(self, stream: Stream) -> None:
        """Take the owner's word for how far the node has come: all unheard of it is a gap."""
        self._skip_to(stream, self._told.last_seq(stream.node.node_id, stream.epoch))

    def _skip_to(self, stream: Stream, last_seq: int) -> None:
        if last_seq > stream.last_seq:
            stream.gaps.append(Gap(stream.last_seq + 1, last_seq))
            stream.last_seq = last_seq
        self.close(stream)
        self._ledger.touch(stream)

    def close(self, stream: Stream) -> None:
        """Close what another gateway has delivered: nobody need fetch it again."""
        delivered_seq = self._told.delivered(stream.node.node_id, stream.epoch)
        if delivered_seq and stream.gaps and close_elsewhere(stream, delivered_seq):
            self._ledger.touch(stream)
