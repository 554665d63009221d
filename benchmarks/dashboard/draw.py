"""Draws the panels of the dashboard where the dashboard puts them."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

_COLUMNS: Final = 24
_INCH_X: Final = 0.72
_INCH_Y: Final = 0.36
_LEGEND_MAX: Final = 8
_PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))

Answer = list[dict[str, Any]]
"""Series of one query: "metric" (labels) and "values" (pairs of time and value)."""


def draw(dashboard: dict[str, Any], ask: Callable[[str], Answer], path: Path) -> None:
    """Write the picture (PNG) to `path`; `ask` answers a query of a panel."""
    panels = dashboard["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(_COLUMNS * _INCH_X, height * _INCH_Y))
    for panel in panels:
        place = panel["gridPos"]
        if panel["type"] == "row":
            top = 1 - (place["y"] + 0.75) / height
            figure.text(0.01, top, panel["title"], fontsize=11, weight="bold", va="center")
            continue
        room = (0.045, 0.25 if place["h"] < 6 else 0.12)  # for the labels, of a panel
        axes = figure.add_axes(
            (
                place["x"] / _COLUMNS + room[0],
                1 - (place["y"] + place["h"]) / height + room[1] * place["h"] / height,
                place["w"] / _COLUMNS - room[0] - 0.008,
                place["h"] / height * (1 - room[1] - 0.16),
            )
        )
        axes.set_title(panel["title"], fontsize=9, loc="left")
        _panel(axes, panel, ask)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def _panel(axes: Axes, panel: dict[str, Any], ask: Callable[[str], Answer]) -> None:
    shown = [
        (_legend(target["legendFormat"], series["metric"], panel["title"]), series["values"])
        for target in panel["targets"]
        for series in ask(target["expr"])
    ]
    unit = panel["fieldConfig"]["defaults"].get("unit", "none")
    if panel["type"] == "stat":
        axes.axis("off")
        numbers = [_number(float(values[-1][1]), unit) for _, values in shown]
        axes.text(0.5, 0.4, " / ".join(numbers) or "no data", fontsize=20, ha="center", va="center", color="#2f855a")
    elif panel["type"] == "heatmap":
        _heatmap(axes, shown)
    else:
        _lines(axes, shown, unit)


def _lines(axes: Axes, shown: list[tuple[str, Any]], unit: str) -> None:
    for legend, values in shown:
        axes.plot([float(at) for at, _ in values], [float(value) for _, value in values], label=legend, linewidth=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, unit)))
    axes.tick_params(labelsize=6)
    axes.set_xticks([])
    axes.grid(visible=True, alpha=0.3)
    axes.set_ylim(bottom=0)
    if shown:
        axes.legend(fontsize=6, ncols=2 if len(shown) > _LEGEND_MAX // 2 else 1, loc="upper left", framealpha=0.6)


def _heatmap(axes: Axes, shown: list[tuple[str, Any]]) -> None:
    """Requests a second by duration: the buckets are cumulative, so each is less the one below."""
    rows = sorted((float(border), values) for border, values in shown if border != "+Inf")
    times = sorted({float(at) for _, values in rows for at, _ in values})
    counts = []
    for _, values in rows:
        at = {float(time): float(value) for time, value in values}
        counts.append([at.get(time, 0.0) for time in times])
    cells = [counts[0]] + [
        [max(0.0, upper - lower) for upper, lower in zip(above, below, strict=True)]
        for below, above in itertools.pairwise(counts)
    ]
    logs = [[math.log10(1 + cell) for cell in row] for row in cells]
    axes.pcolormesh(times, [border for border, _ in rows], logs, cmap="Oranges", shading="nearest")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, "s")))
    axes.tick_params(labelsize=6)
    axes.set_xticks([])


def _legend(form: str, labels: dict[str, str], title: str) -> str:
    """Grafana's legend: {{label}} is the label's value."""
    if form == "__auto":
        return title
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), form).strip()


def _number(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    suffix = {"s": "s", "Bps": "B/s", "bytes": "B", "reqps": "/s", "ops": "/s"}.get(unit, "")
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{suffix}".strip() if prefix or suffix else f"{value:.3g}"
    return f"0 {suffix}".strip()
