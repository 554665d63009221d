"""python -m benchmarks.tcp: what a client of another host gets, beside nbdkit over TCP. Needs root.

Daemon and servers run in one network namespace, clients in another (link.py). aiod's clients are the Python one, and
one that sends prepared batches (prepared.py); nbdkit's is fio with libnbd. All take turns, round after round.
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
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks import cached_file
from benchmarks.tcp.cells import CELLS, FILE_BYTES, Cell
from benchmarks.tcp.contenders import contenders
from benchmarks.tcp.link import build_delay, link

Figures = dict[str, float]
Found = dict[Cell, dict[str, list[Figures]]]

RATIOS: Final = (("aiod", "nbdkit"), ("aiod, CURVE", "nbdkit, TLS"))

console = Console(width=None if os.isatty(1) else 150)


def measure(rounds: int, seconds: float, cells: list[Cell], data: Path, delay: Path, us: int) -> Found:
    """All figures of a link with a delay of `us` each way."""
    found: Found = defaultdict(lambda: defaultdict(list))
    with link(delay, us) as ends, contenders(ends, data) as running:
        for _ in range(rounds):
            for cell in cells:
                for name, contender in running.items():
                    found[cell][name].append(contender.run(cell, seconds))
    return found


def medians(found: Found) -> dict[Cell, dict[str, Figures]]:
    """The median of each figure."""
    return {
        cell: {
            name: {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
            for name, rounds in by_name.items()
        }
        for cell, by_name in found.items()
    }


def table_of(title: str, cells: dict[Cell, dict[str, Figures]]) -> Table:
    """Rates, ratios, and the CPU time of server and client for an operation."""
    names = list(next(iter(cells.values())))
    table = Table("", *names, *(f"{ours} / {peer}" for ours, peer in RATIOS), title=title)
    for cell, by_name in cells.items():
        shown = [f"{f['rate']:,.0f}\n{f['server_us']:.1f} + {f['client_us']:.1f} us" for f in by_name.values()]
        ratios = [f"{by_name[ours]['rate'] / by_name[peer]['rate']:.2f}" for ours, peer in RATIOS]
        table.add_row(str(cell), *shown, *ratios)
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="How often each cell is measured.")
@click.option("--seconds", default=0.5, show_default=True, help="Length of one measurement.")
@click.option(
    "--rtt", "rtts_ms", default=[0.0, 0.2, 2.0], multiple=True, show_default=True, help="Delay, ms there and back."
)
@click.option("--only", default="", help="Measure the cells whose name contains this.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the file is made.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(
    rounds: int, seconds: float, rtts_ms: tuple[float, ...], only: str, directory: str, output: Path | None
) -> None:
    """Measure aiod over ZeroMQ beside nbdkit over TCP."""
    cells = [cell for cell in CELLS if only in str(cell)]
    figures: dict[str, dict[str, dict[str, Figures]]] = {}
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        cached_file.make(data / "file", FILE_BYTES)
        delay = build_delay(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-"))))
        for rtt_ms in rtts_ms:
            found = medians(measure(rounds, seconds, cells, data, delay, round(rtt_ms * 500)))
            title = f"{rtt_ms:g} ms of delay there and back"
            console.print(table_of(title, found))
            figures[title] = {str(cell): by_name for cell, by_name in found.items()}
    machine: dict[str, Any] = {"cpus": os.cpu_count(), "kernel": platform.release()}
    path = output or Path(__file__).parents[1] / "results" / f"tcp-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"figures": figures, "machine": machine}, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
