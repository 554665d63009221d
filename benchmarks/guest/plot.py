"""A plot of bursts: every burst is a dot, for each way and each question."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

_PANELS = (
    ("submit_us", "in submit, all reads of the burst (µs)"),
    ("longest_gap_us", "vcpu's own loop interrupted, longest (µs)"),
    ("done_us", "until the burst was done (µs)"),
)


def draw(bursts: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Write the plot (PNG) to `path`."""
    names = list(bursts)
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(13, 0.5 * len(names) + 1.2), sharey=True)
    for panel, (key, title) in zip(axes, _PANELS, strict=True):
        for row, name in enumerate(names):
            values = sorted(one[key] for one in bursts[name])
            spread = [row + 0.5 * (number % 7 - 3) / 7 for number in range(len(values))]
            panel.scatter(values, spread, s=10, alpha=0.5, color=_color(name), linewidths=0)
            panel.plot([values[len(values) // 2]] * 2, [row - 0.4, row + 0.4], color="black", linewidth=1)
        panel.set_title(title, fontsize=10)
        panel.set_xscale("log")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _color(name: str) -> str:
    if name.startswith(("aiod", "the same")):
        return "#2b6cb0"
    return "#718096" if name == "idle" else "#c05621"
