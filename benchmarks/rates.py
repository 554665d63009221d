"""python -m benchmarks.rates: how exactly a limit of 1,000 requests a second holds.

Cached reads of 4 KiB, which without a limit are hundreds of times as many: by ring, by ZeroMQ, and by both at once.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.own_daemon import OwnDaemon, own_daemon

IOPS: Final = 1000
OFF_MAX_PERCENT: Final = 2.0

console = Console()


def start(daemon: OwnDaemon, transport: str, seconds: float) -> subprocess.Popen[bytes]:
    """A client that reads as fast as it can."""
    command = [sys.executable, "-m", "aiod.ctl", "--endpoint", daemon.endpoint, "--json", "bench", "bench"]
    more = ["--transport", transport, "--seconds", str(seconds), "--size", "1M"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE)


def requests_in(daemon: OwnDaemon, seconds: float) -> float:
    """Reads a second, counted by the daemon over `seconds`."""
    before, before_s = reads(daemon), time.monotonic()
    time.sleep(seconds)
    return (reads(daemon) - before) / (time.monotonic() - before_s)


def reads(daemon: OwnDaemon) -> int:
    """The number of reads that the daemon has done."""
    command = [sys.executable, "-m", "aiod.ctl", "--endpoint", daemon.endpoint, "--json", "stats"]
    stats: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return int(stats["ops"].get("read", {}).get("count", 0))


def measure(daemon: OwnDaemon, transports: tuple[str, ...], seconds: float, limit: bool) -> float:  # noqa: FBT001
    """Reads a second of these clients together."""
    clients = [start(daemon, transport, seconds + 4) for transport in transports]
    while reads(daemon) == 0 or any(client.poll() is not None for client in clients):
        time.sleep(0.05)
    time.sleep(1 if limit else 0.2)
    found = requests_in(daemon, seconds)
    for client in clients:
        client.communicate()
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=10.0, show_default=True, help="Length of one measurement.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(seconds: float, directory: str, output: Path | None) -> None:
    """Measure the rate of clients with a limit and without."""
    figures: dict[str, float] = {}
    for title, limit in (("limited", f"iops_max = {IOPS}\n"), ("not limited", "")):
        for transports in (("zmq",), ("ring",), ("zmq", "ring")):
            with ExitStack() as stack:
                data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
                sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-")))
                daemon = stack.enter_context(own_daemon(sockets, data, limit))
                length = seconds if limit else 1.0
                figures[f"{' and '.join(transports)}, {title}"] = measure(daemon, transports, length, bool(limit))
    table = Table("", "reads/s", "off by", title=f"iops_max = {IOPS}, {seconds:g} s")
    for name, found in figures.items():
        limited = not name.endswith("not limited")
        table.add_row(name, f"{found:,.1f}", f"{abs(found / IOPS - 1):.2%}" if limited else "")
    console.print(table, f"goal: off by {OFF_MAX_PERCENT:g} % at most", sep="\n")
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    path = output or Path(__file__).parent / "results" / f"rates-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"figures": figures, "machine": machine}, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
