"""Plots of the figures (PNG): latency CDFs; operations per second, and CPU time of one, along the curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.matrix.cells import CURVES
from benchmarks.matrix.run import CDF_SHARES

if TYPE_CHECKING:
    from pathlib import Path

_CDF_CELLS: Final = (
    "C, 4 KiB random reads, cached, depth 1, 1 client",
    "C, 4 KiB random reads, cached, depth 32, 1 client",
    "C, 4 KiB random reads, direct, depth 32, 1 client",
    "Python, asyncio, 4 KiB random reads, cached, depth 32, 1 client",
)
_COLORS: Final = {"aiod, ring": "#c53030", "aiod, ZeroMQ": "#ed8936"}
_OTHERS: Final = ("#2b6cb0", "#2f855a", "#6b46c1", "#718096", "#b7791f", "#0987a0", "#97266d", "#4a5568")


def draw(result: dict[str, Any], directory: Path) -> list[str]:
    """Write the plots to `directory`. Returns their file names."""
    directory.mkdir(parents=True, exist_ok=True)
    cells = {cell["key"]: cell for cell in result["cells"]}
    names = []
    wanted = [cells[key] for key in _CDF_CELLS if key in cells]
    if wanted:
        names.append(_cdfs(wanted, directory / "latency.png"))
    for number, curve in enumerate(CURVES):
        keys = result["curves"].get(curve.title, [])
        points = {cells[key][_FIELDS[curve.title]]: cells[key]["contenders"] for key in keys if key in cells}
        if len(points) > 1:
            names.append(_curve(curve.title, curve.axis, points, directory / f"curve-{number + 1}.png"))
    return names


_FIELDS: Final = {
    curve.title: field
    for curve, field in zip(
        CURVES, ("depth", "depth", "clients", "handles", "workers", "depth", "engines"), strict=True
    )
}
"""The field of a cell that is the x axis of each curve."""


def _color(name: str, number: int) -> str:
    return _COLORS.get(name, _OTHERS[number % len(_OTHERS)])


def _cdfs(cells: list[dict[str, Any]], path: Path) -> str:
    figure, grid = plt.subplots(2, 2, figsize=(13, 9), squeeze=False)
    for panel, cell in zip(grid.flat, cells, strict=False):
        for number, (name, figures) in enumerate(cell["contenders"].items()):
            if figures.get("cdf_us"):
                panel.plot(figures["cdf_us"], CDF_SHARES, label=name, color=_color(name, number), linewidth=1.5)
        panel.set_xscale("log")
        panel.set_title(cell["key"], fontsize=9)
        panel.set_xlabel("latency (µs)")
        panel.set_ylabel("share of the operations")
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=7)
    return _saved(figure, path)


def _curve(title: str, axis: str, points: dict[int, dict[str, Any]], path: Path) -> str:
    figure, (rates, costs) = plt.subplots(1, 2, figsize=(13, 4.5))
    names = list(dict.fromkeys(name for contenders in points.values() for name in contenders))
    for number, name in enumerate(names):
        style = {"label": name, "color": _color(name, number), "marker": "o", "markersize": 3, "linewidth": 1.5}
        known = {x: one[name] for x, one in points.items() if "rate" in one.get(name, {})}
        rates.plot(known.keys(), [figures["rate"] for figures in known.values()], **style)
        costs.plot(known.keys(), [_cpu_us(figures) for figures in known.values()], **style)
    for panel, what in ((rates, "operations/s"), (costs, "CPU of client and server (µs an operation)")):
        panel.set_xscale("log", base=2 if max(points) <= 256 else 10)
        panel.set_yscale("log")
        panel.set_xlabel(axis)
        panel.set_title(f"{title}: {what}", fontsize=9)
        panel.set_xticks(list(points), [str(point) for point in points])
        panel.grid(visible=True, alpha=0.3)
    rates.legend(fontsize=7)
    return _saved(figure, path)


def _cpu_us(figures: dict[str, Any]) -> float:
    return float(figures["client_cpu_us"] + figures.get("server_cpu_us", 0.0))


def _saved(figure: Any, path: Path) -> str:
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path.name
