"""The picture of `kerb bench gateway`: rate, CPU and latency of each peer, side by side.

Rule: it draws the figures of one result and nothing else, with their spread where there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_PEERS = ("kerbstone", "thingsboard_gateway", "mosquitto_bridge", "paho_subscribe")
_QUANTILES = ("p50", "p99", "p999")


def draw(figures: dict[str, Any], path: Path) -> None:
    """Write the picture of a result's figures to `path`."""
    plt.rcParams.update({"font.size": 9})
    picture, (rate, cpu, latency) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    _bars(rate, figures, "per_s", "readings a second")
    _bars(cpu, figures, "cpu_us", "CPU a reading, microseconds")
    for at, quantile in enumerate(_QUANTILES):
        names = [name for name in _PEERS if f"{name}_{quantile}_ms" in figures]
        values = [figures[f"{name}_{quantile}_ms"] for name in names]
        places = [row + 0.25 * (at - 1) for row in range(len(names))]
        latency.barh(places, values, 0.24, label=quantile)
        latency.set_yticks(range(len(names)), [name.replace("_", "\n") for name in names])
    latency.set(title="latency at a steady rate, ms", xscale="log")
    latency.invert_yaxis()
    latency.legend(fontsize=7)
    picture.savefig(path, dpi=90)
    plt.close(picture)


def _bars(axes: Axes, figures: dict[str, Any], unit: str, title: str) -> None:
    names = [name for name in _PEERS if f"{name}_{unit}" in figures]
    middle = [figures[f"{name}_{unit}"] for name in names]
    below = [figures[f"{name}_{unit}"] - figures[f"{name}_{unit}_min"] for name in names]
    above = [figures[f"{name}_{unit}_max"] - figures[f"{name}_{unit}"] for name in names]
    colours = ["C0" if name == "kerbstone" else "C7" for name in names]
    axes.barh(range(len(names)), middle, 0.6, xerr=[below, above], color=colours)
    axes.set_yticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axes.set(title=title)
    axes.invert_yaxis()
