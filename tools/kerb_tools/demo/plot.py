"""The picture of a run: fill truth against readings, and the lamps' levels.

Rule: it draws what the checker read from the four sources, not what the gateway believes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from kerb_check.readings import Comparison, Sets
from matplotlib.axes import Axes

_BINS_SHOWN = 6
_LAMPS_SHOWN = 8
_LAMP_STEP = 110  # from one lamp's zero to the next one's


def draw(sets: Sets, comparison: Comparison, run: Path, caption: str) -> list[Path]:
    """Write report.png and report.svg into `run`; return their paths."""
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "kerbstone"})
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(10, 7.2), layout="constrained")
    start_s = min((b.t_s for bursts in sets.world.bursts.values() for b in bursts), default=0.0)
    _fill(upper, comparison, start_s)
    _lamps(lower, sets, start_s)
    figure.suptitle(caption, fontsize=10)
    paths = [run / "report.png", run / "report.svg"]
    for path in paths:
        figure.savefig(path, dpi=110)
    plt.close(figure)
    return paths


def _fill(axes: Axes, comparison: Comparison, start_s: float) -> None:
    for index, (node, alignment) in enumerate(sorted(comparison.alignments.items())):
        if index == _BINS_SHOWN:
            break
        colour = f"C{index}"
        axes.plot(
            [b.t_s - start_s for b, _ in alignment.pairs],
            [b.fill_true_pct for b, _ in alignment.pairs],
            color=colour,
            alpha=0.5,
        )
        live_x: list[float] = []
        live_y: list[float] = []
        late_x: list[float] = []
        late_y: list[float] = []
        for burst, record in alignment.pairs:
            delivered = comparison.unique.get(record.identity)
            if delivered is None or delivered.content.get("fill_pct") is None:
                continue
            live = delivered.content["via"] == "advert"
            (live_x if live else late_x).append(burst.t_s - start_s)
            (live_y if live else late_y).append(delivered.content["fill_pct"])
        axes.plot(live_x, live_y, "o", color=colour, markersize=4, label=f"bin {node[-4:]}")
        axes.plot(late_x, late_y, "o", color=colour, markersize=5, fillstyle="none")
    axes.set(
        xlabel="seconds",
        ylabel="filling level, per cent",
        ylim=(-2, 104),
        title="Bins: line = truth, dot = delivered live, ring = fetched by backfill",
    )
    axes.legend(loc="upper left", fontsize=7, ncols=3)
    axes.grid(alpha=0.25)


def _lamps(axes: Axes, sets: Sets, start_s: float) -> None:
    lamps = [(node, rows) for node, rows in sorted(sets.world.lamps.items()) if rows]
    lamps = lamps[:_LAMPS_SHOWN]
    stop_s = sets.world.stopped_t_s or max((rows[-1].t_s for _, rows in lamps), default=start_s)
    for index, (node, rows) in enumerate(lamps):
        offset = index * _LAMP_STEP
        axes.step(
            [row.t_s - start_s for row in rows] + [stop_s - start_s],
            [row.light_pct + offset for row in rows] + [rows[-1].light_pct + offset],
            where="post",
            color=f"C{index}",
        )
        for fault in sets.world.lamp_faults.get(node, []):
            span = [fault.t_s - start_s, min(fault.end_s, stop_s) - start_s]
            axes.fill_between(span, offset, offset + 100, color="0.5", alpha=0.3, linewidth=0)
            axes.text(span[0], offset + 50, f" {fault.what}", fontsize=7, va="center")
    axes.set(
        xlabel="seconds",
        yticks=[index * _LAMP_STEP + 50 for index in range(len(lamps))],
        yticklabels=[f"lamp {node[-4:]}" for node, _ in lamps],
        xlim=(-1, stop_s - start_s + 1),
        title="Lamps: PWM duty as the world saw it, 0 to 100 %; grey: this one has failed",
    )
    axes.grid(alpha=0.25, axis="x")
