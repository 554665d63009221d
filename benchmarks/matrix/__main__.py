"""python -m benchmarks.matrix: measure, show the figures, and write them to benchmarks/results/results.json.

Exit status: 0 done, 1 aiod failed in some cell. A peer that failed, or is not installed, is named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks.matrix.progress import Watch, failures
from benchmarks.matrix.run import Run

RESULTS = Path(__file__).parents[1] / "results" / "results.json"
ROUNDS = 3
SECONDS = {"few": 0.2, "some": 0.3, "all": 0.3}

console = Console(width=None if sys.stdout.isatty() else 150)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--cells",
    type=click.Choice(["few", "some", "all"]),
    default="some",
    show_default=True,
    help="few: within 3 minutes; some: about 15; all: an hour and a half.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="TEXT",
    help="Measure the cells whose title contains TEXT instead, as 'asyncio, 4 KiB random writes, cached, depth 32'.",
)
@click.option("--rounds", default=ROUNDS, show_default=True, help="Rounds; contenders take turns in each.")
@click.option("--seconds", type=float, help="Length of one turn; default: 0.2 of few, else 0.3.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made; not a tmpfs.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="JSON of the figures.")
def main(cells: str, only: tuple[str, ...], rounds: int, seconds: float | None, directory: str, output: Path) -> None:
    """Measure aiod beside its peers, cell by cell, in one run."""
    run = Run(cells, rounds=rounds, seconds=seconds or SECONDS[cells], directory=Path(directory), only=only)
    if not run.cells:
        raise click.BadParameter(f"no cell contains {' or '.join(map(repr, only))}", param_hint="--only")
    with Watch(console, run.cells, rounds) as watch:
        result = run.take(watch.begin)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result) + "\n")
    console.print(f"figures: {output} (make bench-report writes docs/benchmarks/ from them)")
    failed = failures(result)
    for line in failed:
        console.print(line, markup=False, style="bold red")
    sys.exit(1 if any(": aiod" in line for line in failed) else 0)


if __name__ == "__main__":
    main()
