"""python -m benchmarks.nbd: nbdkit-aiod-plugin beside nbdkit's own file plugin and qemu-nbd.

fio's NBD engine, a native client, drives all servers in turns, round after round, over one file each on one file
system. `make nbdkit-plugin` comes first.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from benchmarks.cached_file import warm
from benchmarks.disk_loads import FILE_BYTES, LOADS, make_file, name_of
from benchmarks.nbd_peers import fio_nbd, nbdkit, nbdkit_aiod, qemu_nbd
from benchmarks.own_daemon import own_daemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks.fio import Figures

GOAL: Final = 1 / 1.25
"""Of the rate of nbdkit's file plugin."""

console = Console()


class Cell(NamedTuple):
    """One kind of load."""

    direct: bool
    rw: str
    block_bytes: int
    depth: int

    def __str__(self) -> str:
        return name_of(self.rw, self.block_bytes, self.depth, direct=self.direct)


CELLS: Final = [Cell(direct, *load) for direct in (False, True) for load in LOADS]


class Server(NamedTuple):
    """A server, and its own file: a write with O_DIRECT drops the pages that the file has in the page cache."""

    uri: str
    file: Path


def start_servers(stack: ExitStack, data: Path, sockets: Path) -> dict[bool, dict[str, Server]]:
    """The servers, with O_DIRECT and without. nbdkit's file plugin has no O_DIRECT."""
    endpoint = stack.enter_context(own_daemon(sockets, data)).endpoint

    def serve(name: str, server: Callable[[Path, Path], AbstractContextManager[str]]) -> Server:
        file = make_file(data / name)
        return Server(stack.enter_context(server(file, sockets / name)), file)

    def aiod(file: Path, socket: Path, *, direct: bool = False) -> AbstractContextManager[str]:
        return nbdkit_aiod(endpoint, f"bench/{file.name}", socket, direct=direct)

    return {
        False: {"aiod": serve("a", aiod), "nbdkit": serve("n", nbdkit), "qemu-nbd": serve("q", qemu_nbd)},
        True: {
            "aiod": serve("ad", partial(aiod, direct=True)),
            "qemu-nbd": serve("qd", partial(qemu_nbd, cache="none")),
        },
    }


def measure(
    servers: dict[bool, dict[str, Server]], rounds: int, seconds: float
) -> dict[Cell, dict[str, list[Figures]]]:
    """All figures, by cell and server, a round after the other."""
    found: dict[Cell, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for cell in CELLS:
            for name, server in servers[cell.direct].items():
                if not cell.direct:
                    warm(server.file)
                figures = fio_nbd(
                    server.uri,
                    rw=cell.rw,
                    block_bytes=cell.block_bytes,
                    depth=cell.depth,
                    size=FILE_BYTES,
                    seconds=seconds,
                )
                found[cell][name].append(figures)
    return found


def medians(found: dict[Cell, dict[str, list[Figures]]]) -> dict[Cell, dict[str, dict[str, float]]]:
    """The median rate, and the median of the p50s."""
    return {
        cell: {
            name: {
                "rate": statistics.median(figures.rate for figures in rounds),
                "p50_us": statistics.median(figures.p50_s for figures in rounds) * 1e6,
            }
            for name, rounds in servers.items()
        }
        for cell, servers in found.items()
    }


def table_of(cells: dict[Cell, dict[str, dict[str, float]]]) -> Table:
    """The table of a terminal."""
    table = Table("", "aiod/s", "nbdkit/s", "qemu-nbd/s", "aiod / nbdkit", "aiod / qemu-nbd", title="NBD servers")
    for cell, servers in cells.items():
        rates = [servers[name]["rate"] if name in servers else None for name in ("aiod", "nbdkit", "qemu-nbd")]
        ratios = [f"{rates[0] / rate:.2f}" if rates[0] and rate else "" for rate in rates[1:]]
        table.add_row(str(cell), *(f"{rate:,.0f}" if rate else "" for rate in rates), *ratios)
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=7, show_default=True, help="How often each cell is measured.")
@click.option("--seconds", default=0.7, show_default=True, help="Length of one measurement.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, directory: str, output: Path | None) -> None:
    """Measure the plugin beside nbdkit's file plugin and qemu-nbd."""
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-")))
        cells = medians(measure(start_servers(stack, data, sockets), rounds, seconds))
    console.print(table_of(cells), f"goal: {GOAL:.2f} of nbdkit's rate, and more than qemu-nbd's", sep="\n")
    machine: dict[str, Any] = {"cpus": os.cpu_count(), "kernel": platform.release()}
    path = output or Path(__file__).parent / "results" / f"nbd-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {str(cell): servers for cell, servers in cells.items()}
    path.write_text(json.dumps({"figures": figures, "machine": machine}, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
