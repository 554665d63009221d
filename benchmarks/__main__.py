"""python -m benchmarks: measure, print a table, and write the figures to benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import wire

console = Console()


def targets(scenarios: dict[str, dict[str, Any]]) -> list[tuple[str, float, str]]:
    """The goals of aiod beside its peers: sentence, measured value, bound."""
    small, large, single = scenarios["4k"], scenarios["1m read"], scenarios["depth 1"]
    qemu_best = max(value["rate"] for name, value in small.items() if name.startswith("qemu-nbd"))
    writes = scenarios["1m write"]
    rate = small["aiod"]["rate"]
    return [
        ("4 KiB reads, depth 128: of a bare echo, 32 frames", rate / small["echo, 32 frames"]["rate"], ">= 0.7"),
        ("4 KiB reads, depth 128: of a bare echo, 1 frame", rate / small["echo, 1 frame"]["rate"], ""),
        ("4 KiB reads, depth 128: of qemu-nbd's best depth", rate / qemu_best, ">= 2"),
        ("1 MiB reads, depth 8: of nbdkit", large["aiod"]["rate"] / large["nbdkit"]["rate"], ">= 1"),
        ("1 MiB writes, depth 8: of nbdkit", writes["aiod"]["rate"] / writes["nbdkit"]["rate"], ""),
        ("4 KiB reads, depth 1: p50 of a bare echo's", single["aiod"]["p50_us"] / single["echo"]["p50_us"], "<= 1.3"),
    ]


def show(result: dict[str, Any]) -> None:
    """The tables of a result."""
    for scenario, contenders in result["scenarios"].items():
        table = Table("contender", "operations/s", "MiB/s", "p50 µs", "spread", title=scenario)
        block = wire.LARGE_BYTES if scenario.startswith("1m") else wire.SMALL_BYTES
        for name, value in sorted(contenders.items(), key=lambda item: -item[1]["rate"]):
            p50 = f"{value['p50_us']:.1f}" if value["p50_us"] is not None else ""
            rate = value["rate"]
            table.add_row(name, f"{rate:,.0f}", f"{rate * block / 2**20:,.0f}", p50, f"{value['rate_spread']:.0%}")
        console.print(table)
    ratios = Table("ratio", "measured", "goal", title="aiod beside its peers")
    for sentence, measured, bound in targets(result["scenarios"]):
        ratios.add_row(sentence, f"{measured:.2f}", bound)
    console.print(ratios)
    memory = result["memory"]
    console.print(
        f"memory of the daemon, RSS summed over its processes: idle {memory['idle_bytes'] / 2**20:.1f} MiB, "
        f"highest under load {memory['peak_bytes'] / 2**20:.1f} MiB"
    )
    if result["thrown_away"]:
        console.print(f"{result['thrown_away']} rounds were discarded: their file was not in the page cache at the end")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="Rounds; contenders take turns in each.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of one contender's turn.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made; not a tmpfs.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, directory: str, output: Path | None) -> None:
    """Measure aiod beside a bare echo, qemu-nbd, nbdkit and a ThreadPoolExecutor, in one run."""
    with (
        tempfile.TemporaryDirectory(prefix="aiod-b-") as sockets,
        tempfile.TemporaryDirectory(dir=directory) as files,
        console.status("starting") as status,
    ):
        result = wire.measure(Path(sockets), Path(files), rounds=rounds, seconds=seconds, say=status.update)
    result["machine"] = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    show(result)
    path = output or Path(__file__).parent / "results" / f"wire-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"figures: {path}")


main()
