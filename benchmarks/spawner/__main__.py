"""python -m benchmarks.spawner: bursts of every policy in turn; a table, JSON, and with --plot a plot."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.spawner import figures, variants

console = Console(width=None if sys.stdout.isatty() else 150)
_COLUMNS = {
    "submit_sum_us": "submit, sum",
    "submit_p50_us": "p50",
    "submit_p99_us": "p99",
    "submit_max_us": "max",
    "lock_p99_us": "lock held, p99",
    "lock_max_us": "max",
    "gap_us": "longest gap",
    "done_us": "burst done",
}


def measure(rounds: int, burst: variants.Burst, moved_to_cpu: int) -> dict[str, Any]:
    """Rounds of all variants in turn, and one round with the main loop moved after the start."""
    with tempfile.TemporaryDirectory() as directory:
        programs = {variant: variants.build(variant, Path(directory)) for variant in variants.VARIANTS}
        raw: dict[str, figures.Rounds] = {variant.name: [] for variant in programs}
        for _ in track(range(rounds), "bursts", console=console, transient=True):
            for variant, program in programs.items():
                raw[variant.name].append(variants.run(variant, program, burst))
        moved = burst._replace(moved_to_cpu=moved_to_cpu)
        astray = {variant.name: _astray(variant, program, moved) for variant, program in programs.items()}
    return {
        "rounds": rounds,
        "burst": burst._asdict(),
        "variants": {name: figures.summary(ones) for name, ones in raw.items()},
        "moved": astray,
    }


def _astray(variant: variants.Variant, program: Path, burst: variants.Burst) -> dict[str, int]:
    result = variants.run(variant, program, burst)
    return {"workers": result["workers"], "astray": result["astray"]}


def show(result: dict[str, Any]) -> None:
    """The tables of a result."""
    table = Table("policy", title=f"a burst of {result['burst']['requests']} into a cold pool; µs, medians")
    for title in (*_COLUMNS.values(), "threads, peak", "confined"):
        table.add_column(title, justify="right")
    for name, value in result["variants"].items():
        cells = [f"{value[key]:,.1f}" for key in _COLUMNS]
        table.add_row(name, *cells, f"{value['threads_peak']:.0f}", f"{value['confined']:.0f}")
    console.print(table)
    moved = Table("policy", "workers", "elsewhere than the main loop", title="the main loop was moved before the burst")
    for name, value in result["moved"].items():
        moved.add_row(name, str(value["workers"]), str(value["astray"]))
    console.print(moved)
    goals = Table("goal", "measured", "bound", "")
    for sentence, measured, bound, reached in figures.targets(result["variants"]):
        goals.add_row(sentence, f"{measured:,.2f}", bound, "reached" if reached else "NOT REACHED")
    console.print(goals)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=21, show_default=True, help="Rounds; policies take turns in each.")
@click.option("--requests", default=64, show_default=True, help="Requests of the burst, and max_threads.")
@click.option("--service-us", default=1000, show_default=True, help="How long each request blocks.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a PNG there.")
def main(rounds: int, requests: int, service_us: int, output: Path | None, plot: Path | None) -> None:
    """Measure the cost of a burst for a pinned submitter, with aiod's spawner and with the rejected policies."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise click.ClickException("needs two CPUs: one is the submitter's, and another must be there for workers")
    result = measure(rounds, variants.Burst(requests, service_us, submitter_cpu=cpus[0]), moved_to_cpu=cpus[-1])
    show(result)
    path = output or Path(__file__).parent.parent / "results" / f"spawner-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"figures: {path}")
    if plot is not None:
        from benchmarks.spawner.plot import draw  # noqa: PLC0415 - only --plot needs matplotlib

        draw(result["variants"], plot)
        console.print(f"picture: {plot}")


if __name__ == "__main__":
    main()
