"""A plot of the figures: horizontal bars, one panel for each question."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

_PANELS = (
    ("submit_sum_us", "in submit, all 64 calls (µs)", "log"),
    ("gap_us", "submitter's own loop interrupted, longest (µs)", "linear"),
    ("done_us", "until the burst was done (µs)", "linear"),
)


def draw(by_name: dict[str, dict[str, float]], path: Path) -> None:
    """Write the plot (PNG) to `path`."""
    names = list(by_name)
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(13, 0.45 * len(names) + 1.2), sharey=True)
    for panel, (key, title, scale) in zip(axes, _PANELS, strict=True):
        values = [by_name[name][key] for name in names]
        bars = panel.barh(names, values, color=[_color(name) for name in names])
        panel.bar_label(bars, labels=[f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        panel.set_title(title, fontsize=10)
        panel.set_xscale(scale)
        panel.margins(x=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _color(name: str) -> str:
    if name.startswith("main-loop"):
        return "#2b6cb0"
    return "#2f855a" if name.startswith("preallocated") else "#a0aec0"
