"""Makes the row of a reading: what an advert or a record says, when it was made and how it came.

Rule: a value that the node could not measure is None, never a number that looks like one.
"""

from __future__ import annotations

from typing import Any

import msgspec
from kerb_wire import records, words

from kerb_gateway.bins.geometry import fill_pct
from kerb_gateway.clock import Moment
from kerb_gateway.model import Reading, Stream
from kerb_gateway.timeline import Span


class Source(msgspec.Struct, frozen=True, gc=False):
    """How a reading came and what proves it; the last three are None unless it was a record."""

    via: str
    auth: str
    digest: bytes
    record: bytes | None = None
    boot_no: int | None = None
    uptime_s: int | None = None


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a reading stands: its numbers, when it arrived, and when it was made."""

    reading_no: int
    stream: Stream
    seq: int
    moment: Moment
    made: Span

    @property
    def axis(self) -> str | None:
        """The boot of the gateway that the span lies in, if it is not this one."""
        return None if self.made.boot_id == self.moment.boot_id else self.made.boot_id


def fill(place: Place, source: Source, row: Any) -> Reading:
    """Return the row of a fill reading from an AdvertReading or a FillRecord."""
    stream, moment, made = place.stream, place.moment, place.made
    distance_mm = _none(row.distance_mm, records.NO_DISTANCE)
    quality = words.QUALITIES[row.quality]
    return Reading(  # by position: by name it takes twenty times as long
        place.reading_no,
        stream.stream_no,
        place.seq,
        "fill",
        moment.boot_id,
        moment.boottime_ms,
        moment.wall_ms,
        moment.quality,
        place.axis,
        made.t_min_ms,
        made.t_ms,
        made.t_max_ms,
        source.via,
        source.auth,
        source.digest,
        source.record,
        source.boot_no,
        source.uptime_s,
        words.EVENTS[row.event],
        distance_mm,
        row.sigma_mm,
        quality,
        _none(row.temperature_dc, records.NO_TEMPERATURE),
        _none(row.battery_pct, records.NO_BATTERY),
        row.flags,
        row.backlog,
        fill_pct(stream.node.geometry, distance_mm, quality),
    )


def lamp(place: Place, source: Source, row: Any) -> Reading:
    """Return the row of a lamp reading from a LampRecord."""
    moment, made = place.moment, place.made
    return Reading(
        reading_no=place.reading_no,
        stream_no=place.stream.stream_no,
        seq=place.seq,
        kind="lamp",
        boot_id=moment.boot_id,
        boottime_ms=moment.boottime_ms,
        wall_ms=moment.wall_ms,
        wall_quality=moment.quality,
        t_boot_id=place.axis,
        t_min_ms=made.t_min_ms,
        t_ms=made.t_ms,
        t_max_ms=made.t_max_ms,
        via=source.via,
        auth=source.auth,
        digest=source.digest,
        record=source.record,
        boot_no=source.boot_no,
        uptime_s=source.uptime_s,
        event=words.EVENTS[records.lamp_event(row)],
        level_pct=row.level_pct,
        reason=words.REASONS[row.reason],
        faults=row.faults,
        outcome=words.OUTCOMES[records.lamp_outcome(row)],
        burn_min=row.burn_min,
        command_no=row.command_no,
    )


def _none(value: int, none: int) -> int | None:
    return None if value == none else value
