"""The comparison of the reading sets: world, flash, database, subscriber.

Rule: every number of every stream ends in exactly one of: delivered, declared lost, unaccounted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from kerb_check import derived, takenback
from kerb_check.alignment import Alignment, align
from kerb_check.database import MAIN, Database, merged
from kerb_check.delivered import Delivered
from kerb_check.flash import Flash
from kerb_check.model import Finding, Found, Identity, Loss, Reading, differences
from kerb_check.world import World

Stream = tuple[str, int]
# A distance further than this from what its own burst saw was not computed from that burst.
_BURST_FIT_MM = 400.0
_SOUND_M_S = 340.0
_GATEWAYS_OWN = ("refused", "retention")  # the node did its part, its flash may still hold them
# Nor does the flash say that these are wrong: nobody can ask a lamp for an epoch that has ended.
_NOT_BY_FLASH = (*_GATEWAYS_OWN, "tail unknown")
# Why one gateway may rightly declare lost what another has delivered: the node, or its own disk,
# had it no more. A number that was never used cannot have been delivered by anyone.
_ONE_MAY_LACK = ("overwritten", "crc", "refused", "retention")


@dataclass
class Sets:
    """All sources of one run."""

    world: World
    flash: dict[str, Flash]
    databases: dict[str, Database]  # by gateway
    delivered: Delivered

    @cached_property
    def database(self) -> Database:
        """All gateways' rows together."""
        return merged(self.databases.values())

    def gateway(self, name: str) -> str:
        """Return the key of `databases` for a gateway's name in topics."""
        return name if name in self.databases else MAIN

    def gone(self) -> set[str]:
        """Return the gateways that never came back."""
        return {self.gateway(name) for name in self.world.gateways_gone}


@dataclass
class Comparison:
    """What the comparison found; `unaccounted` names each number that nothing explains."""

    findings: list[Finding] = field(default_factory=list)
    unaccounted: set[Identity] = field(default_factory=set)
    declared_lost: set[Identity] = field(default_factory=set)
    unique: dict[Identity, Reading] = field(default_factory=dict)  # first arrival of each
    by_gateway: dict[str, dict[Identity, Reading]] = field(default_factory=dict)
    duplicates: int = 0
    by_replay: int = 0  # which the broker had acknowledged and lost: they came on request
    duplicates_across: int = 0  # first arrivals from a second gateway
    lost_by_one: int = 0  # declared by one gateway, rightly, and delivered by another
    alignments: dict[str, Alignment] = field(default_factory=dict)
    measured: int = 0


def compare(sets: Sets) -> Comparison:
    """Compare the four sources; every deviation from the contract becomes a Finding."""
    result = Comparison()
    _arrivals(sets, result)
    _against_flash(sets, result)
    _against_database(sets, result)
    _accounting(sets, result)
    _losses(sets, result)
    result.findings += takenback.check(sets.delivered, result.unique)
    _against_world(sets, result)
    return result


def _arrivals(sets: Sets, result: Comparison) -> None:
    """Keep the first arrival of each reading; a repetition must be identical, order must hold."""
    newest: dict[str, tuple[int, Identity]] = {}
    for reading in sets.delivered.readings:
        wrong = derived.wrong(reading.content, sets.world.geometries.get(reading.identity.node))
        if wrong:
            result.findings.append(Finding("altered", str(reading.identity), wrong, True))
        mine = result.by_gateway.setdefault(sets.gateway(reading.extra["gateway"]), {})
        if _repeats(reading, mine, result):
            continue
        mine[reading.identity] = reading
        result.unique.setdefault(reading.identity, reading)
        replayed = reading.content.get("replayed")  # on request, long after its turn
        result.by_replay += bool(replayed)
        number = None if replayed else reading.content.get("outbox_no")
        topic = f"{reading.extra['topic']} {reading.content.get('gw_epoch')}"
        if number is not None:
            if topic in newest and number < newest[topic][0]:
                result.findings.append(
                    Finding(
                        "reordered",
                        str(reading.identity),
                        f"outbox number {number} arrived after {newest[topic]}",
                    )
                )
            newest[topic] = max(
                newest.get(topic, (0, reading.identity)), (number, reading.identity)
            )


def _repeats(reading: Reading, mine: dict[Identity, Reading], result: Comparison) -> bool:
    """Compare with what came before; tell whether this gateway has sent it already."""
    again, first = mine.get(reading.identity), result.unique.get(reading.identity)
    if first is None:
        return False
    if again is None:
        result.duplicates_across += 1
    else:
        result.duplicates += 1
    # Between gateways one may have it by advert, which carries no time of the node.
    heard = "advert" in (first.content.get("via"), reading.content.get("via"))
    # So may one gateway after a restore: it fetches again what it had heard.
    known = again is not None and again.content.get("gw_epoch") == reading.content.get("gw_epoch")
    before, times = again or first, known or not heard
    changed = differences(before.content, reading.content, times=times)
    if changed:
        result.findings.append(
            Finding("altered", str(reading.identity), f"repeated with {changed}", True)
        )
    return again is not None


def _against_flash(sets: Sets, result: Comparison) -> None:
    """Each delivered reading must be the one that its node stored, in every field."""
    stored = {r.identity: r for flash in sets.flash.values() for r in flash.readings}
    for flash in sets.flash.values():
        if flash.damaged_rows:
            result.findings.append(
                Finding("damaged flash", flash.node, f"{flash.damaged_rows} rows fail their CRC")
            )
    for identity, reading in result.unique.items():
        source = stored.get(identity)
        if source is None:
            result.findings.append(
                Finding("invented", str(identity), "delivered, but its node never stored it", True)
            )
            continue
        whole = reading.content.get("via") != "advert"
        changed = differences(source.content, reading.content, times=whole)
        if changed:
            result.findings.append(
                Finding("altered", str(identity), f"flash against delivered: {changed}", True)
            )


def _against_database(sets: Sets, result: Comparison) -> None:
    """What each gateway stored and what came of it out of the broker must be one set, once each.

    A gateway that never came back may have taken rows along: whether they are lost is judged by
    what all gateways have delivered.
    """
    for name, database in sets.databases.items():
        arrived = result.by_gateway.get(name, {})
        given_up = [
            loss
            for loss in takenback.standing(sets.delivered)
            if loss.reason in _GATEWAYS_OWN and sets.gateway(loss.gateway) == name
        ]
        restored = any(sets.gateway(gateway) == name for gateway, _ in sets.delivered.over)
        _against_one(
            database, arrived, result, given_up, gone=name in sets.gone(), restored=restored
        )


def _against_one(
    database: Database,
    delivered: dict[Identity, Reading],
    result: Comparison,
    given_up: list[Loss],
    *,
    gone: bool,
    restored: bool,
) -> None:
    stored: dict[Identity, Reading] = {}
    newest_live: dict[Stream, int] = {}
    for reading in database.readings:
        identity = reading.identity
        if identity in stored:
            result.findings.append(Finding("stored twice", str(identity), "in readings", True))
            continue
        stored[identity] = reading
        if reading.content.get("via") == "advert":
            stream = (identity.node, identity.epoch)
            if identity.seq < newest_live.get(stream, 0):
                result.findings.append(
                    Finding("replay accepted", str(identity), "stored live below the watermark")
                )
            newest_live[stream] = max(identity.seq, newest_live.get(stream, 0))
    for identity, reading in stored.items():
        arrived = delivered.get(identity)
        if arrived is None and (gone or any(loss.covers(identity) for loss in given_up)):
            continue
        if arrived is None:
            result.findings.append(
                Finding("not delivered", str(identity), "stored by the gateway, never arrived")
            )
            continue
        # A restored gateway fetches again, with the node's time, what it had sent by advert.
        via = reading.content.get("via"), arrived.content.get("via")
        again = restored and via[0] != via[1] and "advert" in via
        changed = differences(reading.content, arrived.content, times=not again)
        if changed:
            result.findings.append(
                Finding("altered", str(identity), f"database against delivered: {changed}", True)
            )
    for identity in delivered.keys() - stored.keys():
        result.findings.append(
            Finding(
                "not stored", str(identity), "delivered, but not in the gateway's database", True
            )
        )


def _known_numbers(sets: Sets, result: Comparison) -> dict[Stream, int]:
    """Return the highest number of each stream that any source knows of."""
    highest: dict[Stream, int] = defaultdict(int)
    everything: Iterable[Identity] = (
        *(r.identity for flash in sets.flash.values() for r in flash.readings),
        *(r.identity for r in sets.database.readings),
        *result.unique,
    )
    for identity in everything:
        stream = (identity.node, identity.epoch)
        highest[stream] = max(highest[stream], identity.seq)
    ranges: list[Loss | Found] = [*sets.database.open_gaps, *sets.delivered.found]
    for known in ranges:
        stream = (known.node, known.epoch)
        highest[stream] = max(highest[stream], known.last_seq)
    return highest


def _accounting(sets: Sets, result: Comparison) -> None:
    """[1..max] of each stream = delivered + declared lost; the rest is unaccounted."""
    by_stream: dict[Stream, list[Loss]] = defaultdict(list)
    for loss in takenback.standing(sets.delivered):
        by_stream[(loss.node, loss.epoch)].append(loss)
    for (node, epoch), last in _known_numbers(sets, result).items():
        losses = by_stream[(node, epoch)]
        for seq in range(1, last + 1):
            identity = Identity(node, epoch, seq)
            if identity in result.unique:
                continue
            if any(loss.covers(identity) for loss in losses):
                result.declared_lost.add(identity)
            else:
                result.unaccounted.add(identity)
                result.findings.append(
                    Finding(
                        "unaccounted", str(identity), "neither delivered nor declared lost", True
                    )
                )


def _losses(sets: Sets, result: Comparison) -> None:
    """A loss record must be true: not for what arrived, nor for what lies on the flash."""
    on_flash = {r.identity for flash in sets.flash.values() for r in flash.readings}
    for flash in sets.flash.values():
        on_flash -= flash.overwritten
    for loss in takenback.standing(sets.delivered):
        if loss.is_tail:
            continue  # open-ended until the next contact: it claims nothing of single numbers
        mine = result.by_gateway.get(sets.gateway(loss.gateway), {})
        for identity in result.unique:
            if not loss.covers(identity):
                continue
            if identity not in mine and loss.reason in _ONE_MAY_LACK:
                result.lost_by_one += 1
                continue
            result.findings.append(
                Finding("false loss", str(identity), f"declared {loss.reason}, yet delivered")
            )
        if loss.reason in _NOT_BY_FLASH:
            continue
        for identity in on_flash - result.unique.keys():
            if loss.covers(identity):
                result.findings.append(
                    Finding(
                        "false loss", str(identity), f"declared {loss.reason}, yet on flash", True
                    )
                )


def _against_world(sets: Sets, result: Comparison) -> None:
    """Each burst that the world answered must be one record on its node's flash."""
    for node, bursts in sets.world.bursts.items():
        result.measured += len(bursts)
        flash = sets.flash.get(node)
        if flash is None or sets.world.roles[node] != "bin":
            continue
        measured = [
            r for r in flash.readings if r.content.get("quality", "not_measured") != "not_measured"
        ]
        alignment = align(bursts, measured, sets.world.sessions_of(node))
        result.alignments[node] = alignment
        for burst in alignment.bursts_alone:
            if not burst.interrupted:
                result.findings.append(
                    Finding(
                        "not recorded",
                        f"{node} wake {burst.wake_no}",
                        "measured and not interrupted, but there is no record on flash",
                        True,
                    )
                )
        for record in alignment.records_alone:
            result.findings.append(
                Finding("invented", str(record.identity), "on flash, but never measured", True)
            )
        for burst, record in alignment.pairs:
            _check_pair(burst.echoes_us, record, result)


def _check_pair(echoes_us: list[int], record: Reading, result: Comparison) -> None:
    distance_mm = record.content["distance_mm"]
    seen = [echo * _SOUND_M_S / 2000.0 for echo in echoes_us if echo > 0]
    if distance_mm is None or not seen:
        if distance_mm is not None:
            result.findings.append(
                Finding("invented", str(record.identity), "a distance without any echo", True)
            )
        return
    if min(abs(distance_mm - one) for one in seen) > _BURST_FIT_MM:
        result.findings.append(
            Finding("altered", str(record.identity), f"{distance_mm} mm from echoes {seen}", True)
        )
