"""Cells: one workload under one condition. A run measures few, some or all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.matrix.work import WORKS, Work

if TYPE_CHECKING:
    from collections.abc import Callable

C: Final = "C"
BLOCKING: Final = "Python, blocking"
ASYNCIO: Final = "Python, asyncio"
THREADS: Final = "Python, threads"
"""One client with as many threads as the depth, each with one request at a time."""


class Cell(NamedTuple):
    """A workload: language, operations, page cache, queue depth and clients."""

    language: str
    work: str
    """A key of WORKS."""
    cache: str
    """cached or direct (O_DIRECT)."""
    depth: int
    """Requests in flight, for each client."""
    clients: int = 1
    handles: int = 1
    """Open files, for each client."""
    engines: int = 1
    """Number of aiod's engines that serve the clients."""
    workers: int = 0
    """Worker threads at most; 0: the default of each contender."""

    @property
    def what(self) -> Work:
        """The operations of this cell."""
        return WORKS[self.work]

    @property
    def key(self) -> str:
        """The cell's name, in one line."""
        extra = [
            f"{value} {name}"
            for name, value in (("handles", self.handles), ("engines", self.engines), ("workers", self.workers))
            if value != Cell._field_defaults[name]
        ]
        return ", ".join(
            [self.language, self.what.title, self.cache, f"depth {self.depth}", _clients(self.clients), *extra]
        )


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


class Curve(NamedTuple):
    """Cells that differ in one number."""

    title: str
    axis: str
    """Label of the x axis."""
    points: tuple[int, ...]
    few: tuple[int, ...]
    """The points of a quick run."""
    cell: Callable[[int], Cell]


_EIGHT_STEPS: Final = (1, 2, 4, 8, 16, 32, 64)

CURVES: Final = (
    Curve(
        "queue depth, cached",
        "requests in flight",
        (*_EIGHT_STEPS, 128, 256),
        (1, 32),
        lambda depth: Cell(C, "randread", "cached", depth),
    ),
    Curve(
        "queue depth, O_DIRECT",
        "requests in flight",
        (*_EIGHT_STEPS, 128),
        (32,),
        lambda depth: Cell(C, "randread", "direct", depth),
    ),
    Curve("clients", "clients", _EIGHT_STEPS, (1, 8), lambda number: Cell(C, "randread", "cached", 1, number)),
    Curve(
        "handles",
        "open files of one client",
        (1, 10, 100, 1000, 4000, 9000),
        (1, 1000),
        lambda number: Cell(C, "randread", "cached", 32, handles=number),
    ),
    Curve(
        "worker threads, O_DIRECT, 64 in flight",
        "worker threads at most",
        _EIGHT_STEPS,
        (),
        lambda number: Cell(C, "randread", "direct", 64, workers=number),
    ),
    Curve(
        "threads of one Python client",
        "threads",
        _EIGHT_STEPS,
        (),
        lambda number: Cell(THREADS, "randread", "cached", number),
    ),
    Curve(
        "engines, 4 clients",
        "engines",
        (1, 2),
        (),
        lambda number: Cell(C, "randread", "cached", 32, 4, engines=number),
    ),
)

FEW: Final = (
    Cell(C, "randread", "cached", 1),
    Cell(C, "randread", "cached", 32),
    Cell(C, "randwrite", "cached", 32),
    Cell(C, "mix", "cached", 32),
    Cell(C, "flush", "cached", 1),
    Cell(C, "read", "cached", 8),
    Cell(C, "write", "cached", 8),
    Cell(C, "randread", "direct", 32),
    Cell(C, "randread", "cached", 8, 4),
    Cell(BLOCKING, "randread", "cached", 1),
    Cell(ASYNCIO, "randread", "cached", 32),
)
SOME: Final = (
    *FEW,
    *(Cell(C, "randread", "cached", depth) for depth in (8, 128)),
    *(Cell(C, work, "cached", 1) for work in ("randwrite", "read", "write")),
    *(Cell(C, work, "direct", 32) for work in ("randwrite", "mix", "read", "write")),
    Cell(C, "randread", "direct", 1),
    Cell(C, "flush", "cached", 8),
    Cell(C, "flush", "cached", 1, 4),
    Cell(C, "randread", "direct", 8, 4),
    Cell(BLOCKING, "randwrite", "cached", 1),
    *(Cell(BLOCKING, work, "cached", 32) for work in ("randread", "randwrite")),
    Cell(BLOCKING, "read", "cached", 8),
    *(Cell(ASYNCIO, work, "cached", 32) for work in ("randwrite", "mix")),
    Cell(ASYNCIO, "flush", "cached", 8),
    Cell(ASYNCIO, "read", "cached", 8),
    Cell(ASYNCIO, "randread", "direct", 32),
    Cell(ASYNCIO, "randread", "cached", 8, 4),
)
ALL: Final = tuple(
    Cell(language, work, cache, depth, clients)
    for language in (C, BLOCKING, ASYNCIO)
    for work in WORKS
    for cache in ("cached", "direct")
    for depth in (1, 8, 32, 128)
    for clients in (1, 4)
)


def selected(selection: str) -> tuple[list[Cell], dict[str, list[Cell]]]:
    """The cells of "few", "some" or "all", including those of the curves; and the cells of each curve, by its title."""
    cells = {"few": FEW, "some": SOME, "all": ALL}[selection]
    curves = {
        curve.title: [curve.cell(point) for point in (curve.few if selection == "few" else curve.points)]
        for curve in CURVES
    }
    points = [cell for curve in curves.values() for cell in curve]
    return list(dict.fromkeys([*cells, *points])), {title: ones for title, ones in curves.items() if ones}


def containing(text: str) -> list[Cell]:
    """Every known cell, also of the curves, whose key contains `text`."""
    cells, _ = selected("all")
    return [cell for cell in cells if text in cell.key]


def as_json(cell: Cell) -> dict[str, Any]:
    """The fields of a cell, for the document."""
    return cell._asdict()
