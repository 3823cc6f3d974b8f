"""The plots of a campaign's report.

Rule: a plot shows every sample, not a summary of them.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

_FEW = 100  # samples that are shown as points too
_PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}")


def plot_counts(path: Path, title: str, counts: dict[str, int]) -> Path:
    """Draw counts as bars with their numbers, on a scale that is logarithmic above 1."""
    names = sorted(counts, key=lambda name: counts[name])
    figure, axes = plt.subplots(figsize=(8, 1 + 0.28 * len(names)))
    bars = axes.barh(names, [counts[name] for name in names])
    axes.bar_label(bars, [f"{counts[name]:,}" for name in names], padding=3)
    axes.set_xscale("symlog", linthresh=1)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path


def plot_samples(path: Path, title: str, samples: dict[str, list[float]]) -> Path:
    """Draw each name's samples as a cumulative share."""
    figure, axes = plt.subplots(figsize=(9, 4))
    for name, values in sorted(samples.items()):
        ordered = sorted(values)
        shares = [index / len(ordered) for index in range(len(ordered) + 1)]
        marker = "." if len(ordered) < _FEW else None
        axes.step([ordered[0], *ordered], shares, where="post", label=name, marker=marker)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("up to so long (logarithmic), in the unit that the name ends with")
    axes.set_ylabel("share")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path
