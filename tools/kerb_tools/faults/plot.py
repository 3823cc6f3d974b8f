"""The plots of a campaign's report.

Rule: a plot shows every sample, not a summary of them.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def plot_counts(path: Path, title: str, counts: dict[str, int]) -> Path:
    """Draw counts as bars, on a logarithmic scale."""
    names = sorted(counts, key=lambda name: counts[name])
    figure, axes = plt.subplots(figsize=(8, 1 + 0.28 * len(names)))
    axes.barh(names, [max(1, counts[name]) for name in names])
    axes.set_xscale("log")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path


def plot_samples(path: Path, title: str, samples: dict[str, list[float]]) -> Path:
    """Draw each name's samples as a cumulative share."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, values in sorted(samples.items()):
        ordered = sorted(values)
        shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
        axes.step(ordered, shares, where="post", label=name)
    axes.set_xscale("log")
    axes.set_ylabel("share")
    axes.set_title(title)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path
