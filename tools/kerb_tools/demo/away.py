"""A gateway that is away while the bins' logs overwrite: numbers are lost, and every one is said.

Rule: what a log is about to overwrite is copied while its node sleeps, so that the checker still
knows what was measured.
"""

from __future__ import annotations

import asyncio
import shutil

from kerb_sim.street import Member

from kerb_tools.demo.run import Demo

SMALL_LOG = {"log_rows": 4, "log_segments": 2}  # the least that a node takes
_LOOK_S = 0.05


async def go_away(demo: Demo, away_s: float) -> None:
    """Switch the first gateway off in the middle, as a power cut does; returns at the end."""
    if not away_s:
        return
    keeping = asyncio.ensure_future(_keep_flash(demo))
    pause_s = (demo.street.plan.duration_s - away_s) / 2
    try:
        await asyncio.sleep(pause_s)
        demo.street.record.write("fault", what="gateway away", for_s=away_s)
        await demo.kill_gateway()
        await asyncio.sleep(away_s)
        await demo.start_gateway()
        await asyncio.sleep(pause_s)
    finally:
        keeping.cancel()


async def _keep_flash(demo: Demo) -> None:
    """Copy the flash of each bin that sleeps and has written, for ever."""
    bins = [member for member in demo.street.members if member.role == "bin"]
    kept = {member.name: (0, 0) for member in bins}  # modification time, number of copies
    while True:
        for member in bins:
            if member.board.state == "sleeping":
                kept[member.name] = _copy(demo, member, *kept[member.name])
        await asyncio.sleep(_LOOK_S)


def _copy(demo: Demo, member: Member, seen_ns: int, copies: int) -> tuple[int, int]:
    image = demo.street.run_dir / "nodes" / member.name / "flash.img"
    written_ns = image.stat().st_mtime_ns
    if written_ns == seen_ns:
        return seen_ns, copies
    shutil.copyfile(image, image.with_name(f"flash-{copies + 1:04}.img"))
    return written_ns, copies + 1
