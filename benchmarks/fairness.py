"""python -m benchmarks.fairness: a reader of 4 KiB at a time beside a client that floods the disk with writes of 1 MiB.

Both past the page cache, on one file system. In each round: the reader alone; the flooder alone; both, with the limits
of what one session has in service (active_bytes_max, reserve_threads), and with those limits off. The queues are served
in turn in both cases.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.own_daemon import OwnDaemon, own_daemon

AIOD_BENCH: Final = Path(__file__).parents[1] / "build" / "aiod-bench"
MIB: Final = 1 << 20
READ_BYTES: Final = 256 * MIB
FLOOD_BYTES: Final = 1024 * MIB
FLOOD_DEPTH: Final = 64
HEAD_START_S: Final = 0.5
LIMITS_OFF: Final = "[engine.main]\nreserve_threads = 0\n[sessions]\nactive_bytes_max = 0\n"
P99_MAX: Final = 3.0
FLOOD_MIN: Final = 0.7

console = Console()


def reading(daemon: OwnDaemon) -> list[str]:
    """The reader's command."""
    return [str(AIOD_BENCH), "--endpoint", daemon.endpoint, "--file", "bench/read", "--rw", "randread", "--json"]


def flooding(daemon: OwnDaemon) -> list[str]:
    """The flooder's command."""
    size, depth = ["--bs", str(MIB)], ["--depth", str(FLOOD_DEPTH)]
    return [
        str(AIOD_BENCH),
        "--endpoint",
        daemon.endpoint,
        "--file",
        "bench/flood",
        "--rw",
        "write",
        *size,
        *depth,
        "--json",
    ]


def alone(command: list[str], seconds: float) -> dict[str, Any]:
    """The figures that one client has printed."""
    done = subprocess.run([*command, "--seconds", str(seconds)], check=True, capture_output=True)
    return dict(json.loads(done.stdout))


def together(daemon: OwnDaemon, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of the reader and of the flooder; the flooder begins before the reader and ends after it."""
    long = str(seconds + 2 * HEAD_START_S)
    with subprocess.Popen([*flooding(daemon), "--seconds", long], stdout=subprocess.PIPE) as flood:
        time.sleep(HEAD_START_S)
        read = alone(reading(daemon), seconds)
        said, _ = flood.communicate()
    return read, dict(json.loads(said))


def measure(daemon: OwnDaemon, without: OwnDaemon, seconds: float) -> dict[str, float]:
    """The figures of one round."""
    read, flood = alone(reading(daemon), seconds), alone(flooding(daemon), seconds)
    read_fair, flood_fair = together(daemon, seconds)
    read_unfair, flood_unfair = together(without, seconds)
    return {
        "reader alone, p99 (us)": read["p99_us"],
        "reader beside the flooder, p99 (us)": read_fair["p99_us"],
        "reader beside the flooder, limits off, p99 (us)": read_unfair["p99_us"],
        "flooder alone (MiB/s)": flood["bandwidth_bytes"] / MIB,
        "flooder beside the reader (MiB/s)": flood_fair["bandwidth_bytes"] / MIB,
        "flooder beside the reader, limits off (MiB/s)": flood_unfair["bandwidth_bytes"] / MIB,
        "p99 / p99 alone": read_fair["p99_us"] / read["p99_us"],
        "p99 / p99 alone, limits off": read_unfair["p99_us"] / read["p99_us"],
        "flooder's share of its own": flood_fair["bandwidth_bytes"] / flood["bandwidth_bytes"],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="Rounds.")
@click.option("--seconds", default=2.0, show_default=True, help="Length of one measurement.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, directory: str, output: Path | None) -> None:
    """Measure a reader's latency beside a flooder, and the flooder's remaining bandwidth."""
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        for name, size in (("read", READ_BYTES), ("flood", FLOOD_BYTES)):
            with (data / name).open("wb") as file:
                for _ in range(size // MIB):
                    file.write(os.urandom(MIB))
        sockets = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-"))) for _ in range(2)]
        direct = "direct = true\n"
        fair = stack.enter_context(own_daemon(sockets[0], data, direct))
        unfair = stack.enter_context(own_daemon(sockets[1], data, direct + LIMITS_OFF))
        measured = [measure(fair, unfair, seconds) for _ in range(rounds)]
    medians = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
    table = Table("", "median", "goal", title=f"{rounds} rounds of {seconds:g} s")
    wanted = {"p99 / p99 alone": f"<= {P99_MAX:g}", "flooder's share of its own": f">= {FLOOD_MIN:g}"}
    for name, value in medians.items():
        table.add_row(name, f"{value:,.2f}" if value < 100 else f"{value:,.0f}", wanted.get(name, ""))
    console.print(table)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    path = output or Path(__file__).parent / "results" / f"fairness-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"medians": medians, "rounds": measured, "machine": machine}, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
