"""python -m benchmarks.ring: measure, print the tables, and leave the figures in benchmarks/results/.

Exit status: 0 all contenders took their turns, 1 some are not available.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks import cached_file
from benchmarks.own_daemon import own_daemon
from benchmarks.ring import idle, in_c, in_python, tables
from benchmarks.ring.load import FILE_BYTES
from benchmarks.ring.machine import machine
from benchmarks.ring.peers import DIRECT, Peers
from benchmarks.ring.scenarios import SCENARIOS
from benchmarks.ring.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

console = Console(width=None if sys.stdout.isatty() else 150)


def measure(
    files: Path, *, only: tuple[str, ...], rounds: int, seconds: float, loop: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """All scenarios, or those of `only`; `files` is on a real file system."""
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-")))
        daemon = stack.enter_context(
            own_daemon(sockets, files, f'[exports.{DIRECT}]\npath = "{files}"\ndirect = true\n')
        )
        peers = Peers(stack, daemon, sockets, files)
        for path in (peers.cached, peers.direct):
            cached_file.make(path, FILE_BYTES)
        everybody = [*in_c.contenders(peers), *in_python.contenders(peers, loop), *idle.contenders(peers)]
        wanted = only or tuple(SCENARIOS)
        turns = Turns(
            [contender for key in SCENARIOS if key in wanted for contender in everybody if contender.scenario == key],
            say,
        )
        turns.take(rounds=rounds, seconds=seconds)
    scenarios = turns.results()
    return {
        "settings": {"rounds": rounds, "seconds": seconds, "loop": loop, "file_bytes": FILE_BYTES},
        "machine": machine(),
        "scenarios": scenarios,
        "ratios": tables.ratios(scenarios),
        "thrown_away": turns.thrown_away,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="Rounds; contenders take turns in each.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of one contender's turn.")
@click.option("--only", multiple=True, type=click.Choice(list(SCENARIOS)), help="This scenario; may be given again.")
@click.option(
    "--loop",
    type=click.Choice(["uvloop", "asyncio"]),
    default="uvloop",
    show_default=True,
    help="The event loop of all asyncio contenders.",
)
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made; not a tmpfs.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, only: tuple[str, ...], loop: str, directory: str, output: Path | None) -> None:
    """Measure aiod's shared-memory ring beside its peers, in one run."""
    with tempfile.TemporaryDirectory(dir=directory) as files, console.status("starting") as status:
        result = measure(Path(files), only=only, rounds=rounds, seconds=seconds, loop=loop, say=status.update)
    tables.show(console, result)
    path = output or Path(__file__).parents[1] / "results" / f"ring-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"figures: {path}")
    missing = sum("not_available" in figures for ones in result["scenarios"].values() for figures in ones.values())
    if missing:
        console.print(f"[bold red]{missing} contenders are not available: see the tables[/]")
        sys.exit(1)


if __name__ == "__main__":
    main()
