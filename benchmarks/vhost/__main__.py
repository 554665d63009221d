"""python -m benchmarks.vhost: aiod's vhost-user-blk beside qemu-storage-daemon's, and beside aiod's own ring.

A virtio-blk driver in user space loads the servers in turns, round after round. They share a file: the size of the page
cache's folios, which differs from file to file, changes the time of a cached write by three times (ext4). The driver
sleeps on the call eventfd, as a guest's does, or polls; the ring's client does the same.
`make build/vhost-bench build/aiod-bench` comes first.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from benchmarks.disk_loads import LOADS, make_file, name_of
from benchmarks.own_daemon import own_daemon
from benchmarks.vhost.servers import by_ring, by_vhost, qemu_storage_daemon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.own_daemon import OwnDaemon
    from benchmarks.vhost.servers import Contender

AIOD: Final = "aiod, vhost"
RING: Final = "aiod, ring"
QEMU: Final = {False: ("threads", "io_uring"), True: ("threads", "native", "io_uring")}
"""qemu-storage-daemon's ways to do I/O: with the page cache, and with O_DIRECT."""

console = Console(width=None if os.isatty(1) else 190)


class Cell(NamedTuple):
    """One kind of load."""

    direct: bool
    polls: bool
    rw: str
    block_bytes: int
    depth: int

    def __str__(self) -> str:
        load = name_of(self.rw, self.block_bytes, self.depth, direct=self.direct)
        return f"{load}, {'polling' if self.polls else 'sleeping'}"


CELLS: Final = [Cell(direct, polls, *load) for direct in (False, True) for polls in (False, True) for load in LOADS]
Figures = dict[Cell, dict[str, dict[str, float]]]


def start_aiod(stack: ExitStack, file: Path, sockets: Path, engine: str, *, direct: bool) -> tuple[OwnDaemon, Path]:
    """A daemon, and the socket of its disk, whose engine has the settings `engine`."""
    sockets.mkdir()
    vhost = sockets / "vhost"
    toml = f'direct = {str(direct).lower()}\n[vhost.disk]\nsocket = "{vhost}"\nexport = "bench"\npath = "{file.name}"\n'
    return stack.enter_context(own_daemon(sockets, file.parent, f"{toml}[engine.vhost-disk]\n{engine}\n")), vhost


def start_servers(
    stack: ExitStack, data: Path, sockets: Path, engines: Sequence[str], *, direct: bool
) -> list[Contender]:
    """The servers, with O_DIRECT or without; `engines`: settings of more daemons."""
    files, sockets = data / str(direct), sockets / str(int(direct))
    files.mkdir()
    sockets.mkdir()
    file = make_file(files / "disk")
    daemon, vhost = start_aiod(stack, file, sockets / "a", "", direct=direct)
    contenders = [by_vhost(AIOD, vhost, daemon.pids), by_ring(RING, daemon, "bench/disk")]
    for number, engine in enumerate(engines):
        other, vhost = start_aiod(stack, file, sockets / str(number), engine, direct=direct)
        contenders.append(by_vhost(f"{AIOD}, {engine}", vhost, other.pids))
    for aio in QEMU[direct]:
        server = qemu_storage_daemon(file, sockets / aio, aio=aio, direct=direct)
        try:
            pid = stack.enter_context(server)
        except RuntimeError as error:
            console.print(f"left out: {error}")
            continue
        contenders.append(by_vhost(f"qemu, {aio}", sockets / aio, lambda pid=pid: [pid]))  # type: ignore[misc]
    return contenders


def measure(contenders: dict[bool, list[Contender]], cells: list[Cell], rounds: int, seconds: float) -> Figures:
    """The medians, by cell and contender; the contenders take turns in each round."""
    found: dict[Cell, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for cell in cells:
            for contender in contenders[cell.direct]:
                figures = contender.run(
                    polls=cell.polls, rw=cell.rw, block_bytes=cell.block_bytes, depth=cell.depth, seconds=seconds
                )
                found[cell][contender.name].append(figures)
    keys = ("iops", "p50_us", "p99_us", "server_cpu_us")
    return {
        cell: {
            name: {key: statistics.median(one[key] for one in figures) for key in keys}
            for name, figures in by_name.items()
        }
        for cell, by_name in found.items()
    }


def ratios_of(by_name: dict[str, dict[str, float]]) -> tuple[float, float]:
    """The rate of aiod's server, of the best of qemu-storage-daemon's and of the ring's."""
    rate = by_name[AIOD]["iops"]
    best = max((one["iops"] for name, one in by_name.items() if name.startswith("qemu")), default=float("nan"))
    return rate / best, rate / by_name[RING]["iops"]


def table_of(figures: Figures) -> Table:
    """The table of a terminal."""
    names = list(dict.fromkeys(name for by_name in figures.values() for name in by_name))
    table = Table(
        "requests/s (server's CPU µs a request)", *names, "aiod / qemu's best", "aiod / ring", title="vhost-user-blk"
    )
    for cell, by_name in figures.items():
        cells = [
            f"{by_name[name]['iops']:,.0f} ({by_name[name]['server_cpu_us']:.1f})" if name in by_name else ""
            for name in names
        ]
        table.add_row(str(cell), *cells, *(f"{ratio:.2f}" for ratio in ratios_of(by_name)))
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=7, show_default=True, help="How often each cell is measured.")
@click.option("--seconds", default=0.5, show_default=True, help="Length of one measurement.")
@click.option("--only", default="", help="Measure only the cells whose name contains this text.")
@click.option("--engine", multiple=True, help="One more aiod whose engine has this setting, e.g. ring_poll_max_us = 0.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, only: str, engine: tuple[str, ...], directory: str, output: Path | None) -> None:
    """Measure aiod's vhost-user-blk server beside qemu-storage-daemon's and aiod's own ring."""
    cells = [cell for cell in CELLS if only in str(cell)]
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-")))
        contenders = {
            direct: start_servers(stack, data, sockets, engine, direct=direct)
            for direct in {cell.direct for cell in cells}
        }
        figures = measure(contenders, cells, rounds, seconds)
    console.print(table_of(figures))
    machine: dict[str, Any] = {"cpus": os.cpu_count(), "kernel": platform.release()}
    path = output or Path(__file__).parent.parent / "results" / f"vhost-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    cells_json = {str(cell): by_name for cell, by_name in figures.items()}
    path.write_text(json.dumps({"figures": cells_json, "machine": machine}, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
