"""Loss records that do not stand for ever: tails that a contact closed, refusals undone.

Rule: what was taken back covers nothing any more; what was not, must be true until the end. A
message may come twice: its id says that it is the same one.
"""

from __future__ import annotations

from kerb_check.delivered import Delivered
from kerb_check.model import Finding, Found, Identity, Loss, Reading

Unique = dict[Identity, Reading]


def standing(delivered: Delivered) -> list[Loss]:
    """Return the losses that were not taken back, one by one or with their gw_epoch."""
    gone = {found.of for found in delivered.found}
    return [
        loss
        for loss in delivered.losses
        if not loss.id or not (loss.id in gone or _is_over(loss, delivered))
    ]


def _is_over(loss: Loss, delivered: Delivered) -> bool:
    """Tell whether it is a tail of a gw_epoch that a restore has ended: the next one says anew."""
    parts = loss.id.split("/")
    return loss.is_tail and len(parts) > 4 and (loss.gateway, parts[4]) in delivered.over


def check(delivered: Delivered, unique: Unique) -> list[Finding]:
    """Return what is wrong with tails, with what was taken back, and with what was dropped."""
    return [
        *_of_nothing(delivered),
        *_doubled(delivered),
        *_not_closed(delivered, unique),
        *_dropped(delivered),
    ]


def _of_nothing(delivered: Delivered) -> list[Finding]:
    """Each record that takes back must name a loss that was said, and its range."""
    said = {loss.id: loss for loss in delivered.losses}
    findings = []
    for found in delivered.found:
        loss = said.get(found.of)
        if loss is None:
            findings.append(Finding("taken back", found.of, "no such loss was said"))
        elif not _fits(found, loss):
            findings.append(Finding("taken back", found.of, f"{found} does not fit {loss}"))
    return findings


def _fits(found: Found, loss: Loss) -> bool:
    same = (found.node, found.epoch, found.first_seq) == (loss.node, loss.epoch, loss.first_seq)
    if loss.is_tail:
        return same and found.last_seq >= found.first_seq - 1
    return same and found.last_seq == loss.last_seq


def _doubled(delivered: Delivered) -> list[Finding]:
    """At most one tail of a stream stands, by the word of one gateway."""
    tails: dict[tuple[str, str, int], set[str]] = {}
    for loss in standing(delivered):
        if loss.is_tail:
            tails.setdefault((loss.gateway, loss.node, loss.epoch), set()).add(loss.id)
    return [
        Finding("tail", f"{node}/{epoch}", f"{len(ids)} tails stand at once")
        for (_, node, epoch), ids in tails.items()
        if len(ids) > 1
    ]


def _not_closed(delivered: Delivered, unique: Unique) -> list[Finding]:
    """A gateway that delivers a number of a tail has heard the node: its tail must be closed."""
    findings = []
    for loss in standing(delivered):
        if not loss.is_tail:
            continue
        for identity, reading in unique.items():
            if loss.covers(identity) and reading.extra["topic"].split("/")[3] == loss.gateway:
                detail = f"number {identity.seq} came, yet the tail from {loss.first_seq} stands"
                findings.append(Finding("tail", f"{loss.node}/{loss.epoch}", detail))
                break
    return findings


def _dropped(delivered: Delivered) -> list[Finding]:
    """What a person gave up stays declared lost."""
    refused = [loss for loss in standing(delivered) if loss.reason == "refused"]
    return [
        Finding("dropped", str(one.identity), "given up, but no loss record stands for it", True)
        for one in delivered.dropped
        if not any(loss.covers(one.identity) for loss in refused)
    ]
