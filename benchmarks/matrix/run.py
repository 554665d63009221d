"""A run: the daemon, the files, the turns, and the document with the results."""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import cached_file
from benchmarks.latency import merged, percentiles_us
from benchmarks.matrix import cells, cost, peers
from benchmarks.matrix.versions import machine
from benchmarks.matrix.work import FILE_BYTES
from benchmarks.own_daemon import own_daemon
from benchmarks.ring.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILES_MAX: Final = 1 << 17
CDF_SHARES: Final = (0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
"""The shares for which the latency distribution of all rounds is stored."""


class Run:
    """The turns of a selection: "few", "some" or "all"; or of the cells whose key contains a text."""

    def __init__(
        self, selection: str, *, rounds: int, seconds: float, directory: Path, only: tuple[str, ...] = ()
    ) -> None:
        """`directory` is on a real file system. `only`: texts of which a cell's key contains one."""
        self.selection = selection
        self.rounds = rounds
        self.seconds = seconds
        self.cells, self.curves = cells.selected(selection)
        if only:
            self.cells, self.curves = list(dict.fromkeys(cell for text in only for cell in cells.containing(text))), {}
        self._directory = directory
        self._turns = Turns([], lambda _: None)
        self._began_s = 0.0

    def take(self, begin: Callable[[Turns], Callable[[str], None]]) -> dict[str, Any]:
        """Take all turns; the document. `begin` gets the turns, and returns the callback for their events."""
        cost.adopt_orphans()
        _allow_many_files()
        self._began_s = time.monotonic()
        with ExitStack() as stack:
            place = self._place(stack)
            everybody = [contender for cell in self.cells for contender in peers.contenders(place, cell)]
            self._turns = Turns(everybody, lambda _: None)
            self._turns.say = begin(self._turns)
            self._turns.take(rounds=self.rounds, seconds=self.seconds)
        return self._document()

    def _place(self, stack: ExitStack) -> peers.Place:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-")))
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-", dir=self._directory)))
        for export in peers.EXPORTS:
            (files / export).mkdir()
        daemon = stack.enter_context(own_daemon(sockets, files / peers.EXPORTS[0], _more_toml(files)))
        place = peers.Place(daemon, files, sockets)
        for path in (place.cached, place.cached_too, place.direct):
            cached_file.make(path, FILE_BYTES)
        return place

    def _document(self) -> dict[str, Any]:
        return {
            "settings": {
                "selection": self.selection,
                "rounds": self.rounds,
                "seconds": self.seconds,
                "file_bytes": FILE_BYTES,
                "took_s": round(time.monotonic() - self._began_s),
                "date": time.strftime("%Y-%m-%d"),
            },
            "machine": machine(),
            "cells": list(self._cells()),
            "curves": {title: [cell.key for cell in ones] for title, ones in self.curves.items()},
            "thrown_away": self._turns.thrown_away,
        }

    def _cells(self) -> Iterator[dict[str, Any]]:
        results = self._turns.results()
        for cell in self.cells:
            figures = results[cell.key]
            for name, ones in figures.items():
                rounds = self._turns.measured.get((cell.key, name), [])
                latency = merged(measured.latency for measured in rounds if measured.latency)
                ones["cdf_us"] = percentiles_us(latency, CDF_SHARES)
            with_ratios(figures)
            yield {"key": cell.key, **cells.as_json(cell), "title": cell.what.title, "contenders": figures}


def with_ratios(figures: dict[str, dict[str, Any]]) -> None:
    """Add to each contender of a cell the ratios of its rate and median latency to aiod's."""
    aiod = figures.get(peers.AIOD, {})
    for ones in figures.values():
        for field, name in (("rate", "rate_of_aiod"), ("p50_us", "p50_of_aiod")):
            if ones.get(field) and aiod.get(field):
                ones[name] = ones[field] / aiod[field]


def _allow_many_files() -> None:
    """Raise the descriptor limit, as aiod's unit does. Without the right to, the cell with most handles fails."""
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))


def _more_toml(files: Path) -> str:
    """Two engines, and the limits that the largest cells need; the rest is the default."""
    first, second = (files / export for export in peers.EXPORTS)
    return (
        f'[exports.{peers.EXPORTS[0]}]\npath = "{first}"\n'
        f'[exports.direct]\npath = "{first}"\ndirect = true\n'
        f'[exports.{peers.EXPORTS[1]}]\npath = "{second}"\nengine = "second"\n'
        "[engine.second]\n[engine.main]\nrings_max = 128\nring_bytes_max = 4294967296\nmemory_max = 8589934592\n"
        "[sessions]\nhandles_max = 16384\n"
    )
