"""python -m benchmarks.rings: cached 4 KiB reads at depth 1 by many clients, beside idle rings, and on one CPU.

The cells take turns in each round. On one CPU the peer is nbdkit, whose server and client share that CPU, too.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import cached_file
from benchmarks.nbd_peers import fio_nbd, nbdkit
from benchmarks.own_daemon import own_daemon
from benchmarks.rings import fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.own_daemon import OwnDaemon

MIB: Final = 1 << 20
FILE_BYTES: Final = 64 * MIB
BLOCK_BYTES: Final = 4096
IDLE: Final = 1000
MORE_TOML: Final = (
    f"[sessions]\nsessions_max = {2 * IDLE}\n[engine.main]\nrings_max = {2 * IDLE}\nring_bytes_max = {4096 * MIB}\n"
)
FILES_MAX: Final = 16 * IDLE
"""Descriptors: each ring takes a few at both ends."""

CLIENTS: Final = (1, 4, 16, 64)
FOUR: Final = "4 clients"
BESIDE_IDLE: Final = f"4 clients, {IDLE:,} idle rings"
ONE_CPU: Final = "one CPU, 1 client"
ONE_CPU_FOUR: Final = "one CPU, 4 clients"
ONE_CPU_NBDKIT: Final = "one CPU, 1 client, nbdkit"

RATIOS: Final = (
    ("64 clients / 16 clients", "64 clients", "16 clients", 0.8),
    (f"4 clients with {IDLE:,} idle rings / 4 clients", BESIDE_IDLE, FOUR, 0.95),
    ("one CPU, 1 client / nbdkit", ONE_CPU, ONE_CPU_NBDKIT, 2.0),
)
"""Two cells, and the least ratio of their rates that is wanted."""

Cell = dict[str, float]

console = Console(width=None if __name__ == "__main__" and os.isatty(1) else 150)


def bind_to_one_cpu(pids: list[int]) -> int:
    """Let all threads of the processes use one of their CPUs only; its number."""
    cpu = min(os.sched_getaffinity(0))
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {cpu})
    return cpu


def by_nbdkit(uri: str, cpu: int, seconds: float) -> Cell:
    """One client of nbdkit, both on that CPU. The peers inherit the affinity of this process."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        figures = fio_nbd(uri, rw="randread", block_bytes=BLOCK_BYTES, depth=1, size=FILE_BYTES, seconds=seconds)
    finally:
        os.sched_setaffinity(0, allowed)
    return {"rate": figures.rate, "p50_us": figures.p50_s * 1e6, "p99_us": figures.p99_s * 1e6}


def cells_of(
    stack: ExitStack, program: Path, daemons: tuple[OwnDaemon, OwnDaemon], files: Path, sockets: Path
) -> dict[str, Callable[[float], Cell]]:
    """The cells by name; the second daemon is for those on one CPU."""
    everywhere, bound = (fleet.Fleet(program, daemon, "bench/file") for daemon in daemons)
    cpu = bind_to_one_cpu(daemons[1].pids())
    mask = hex(1 << cpu)

    def clients(busy: int, idle: int) -> Callable[[float], Cell]:
        return lambda seconds: everywhere.run(busy=busy, idle=idle, seconds=seconds)

    def on_one_cpu(busy: int) -> Callable[[float], Cell]:
        return lambda seconds: bound.run(busy=busy, idle=0, seconds=seconds, cpus=mask)

    cells = {f"{busy} client{'s' * (busy > 1)}": clients(busy, 0) for busy in CLIENTS}
    cells |= {BESIDE_IDLE: clients(4, IDLE), ONE_CPU: on_one_cpu(1), ONE_CPU_FOUR: on_one_cpu(4)}
    try:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        try:
            uri = stack.enter_context(nbdkit(files / "file", sockets / "nbdkit"))
        finally:
            os.sched_setaffinity(0, allowed)
    except (OSError, RuntimeError) as error:
        console.print(f"nbdkit is left out: {error}")
        return cells
    return cells | {ONE_CPU_NBDKIT: lambda seconds: by_nbdkit(uri, cpu, seconds)}


def medians_of(rounds: list[Cell]) -> Cell:
    """The median of each figure."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def show(medians: dict[str, Cell], ratios: dict[str, float]) -> None:
    """Print the tables."""
    names = {
        "rate": "reads/s",
        "least_rate": "reads/s, slowest client",
        "p50_us": "p50 µs",
        "p99_us": "p99 µs",
        "client_cpu_us": "client CPU µs",
        "daemon_cpu_us": "daemon CPU µs",
        "client_switches": "client switches",
        "daemon_switches": "daemon switches",
    }
    table = Table("", *names.values(), title="4 KiB reads from the page cache, one at a time; costs for each read")
    for cell, figures in medians.items():
        table.add_row(
            cell,
            *(
                "" if name not in figures else f"{figures[name]:,.0f}" if "rate" in name else f"{figures[name]:.2f}"
                for name in names
            ),
        )
    console.print(table)
    for sentence, _, _, least in RATIOS:
        if sentence in ratios:
            console.print(f"{sentence}: {ratios[sentence]:.2f} (wanted: {least:g})")


def measure(data: Path, sockets: Path, rounds: int, seconds: float) -> dict[str, list[Cell]]:
    """The figures of each round, by cell."""
    measured: dict[str, list[Cell]] = {}
    cached_file.make(data / "file", FILE_BYTES)
    with ExitStack() as stack:
        homes = (sockets / "a", sockets / "b")
        for home in homes:
            home.mkdir()
        first, second = (stack.enter_context(own_daemon(home, data, MORE_TOML)) for home in homes)
        cells = cells_of(stack, fleet.build(sockets), (first, second), data, sockets)
        for _ in range(rounds):
            for name, run in cells.items():
                measured.setdefault(name, []).append(run(seconds))
    return measured


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="Rounds.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of one measurement.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the file is made; not a tmpfs.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, directory: str, output: Path | None) -> None:
    """Measure many clients at depth 1, few beside many idle rings, and clients that share one CPU with the engine."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES_MAX, most), most))
    with tempfile.TemporaryDirectory(prefix="aiod-b-") as sockets, tempfile.TemporaryDirectory(dir=directory) as data:
        measured = measure(Path(data), Path(sockets), rounds, seconds)
    medians = {name: medians_of(ones) for name, ones in measured.items()}
    ratios = {
        sentence: statistics.median(
            one["rate"] / other["rate"] for one, other in zip(measured[over], measured[under], strict=True)
        )
        for sentence, over, under, _ in RATIOS
        if over in measured and under in measured
    }
    show(medians, ratios)
    document: dict[str, Any] = {
        "medians": medians,
        "ratios": ratios,
        "rounds": measured,
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
    }
    path = output or Path(__file__).parents[1] / "results" / f"rings-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
