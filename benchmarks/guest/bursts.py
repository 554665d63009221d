"""python -m benchmarks.guest.bursts: how a burst of uncached reads disturbs the pinned thread that submitted it.

No KVM is needed: a thread in user space plays the vcpu (vcpu.c). It is pinned to one CPU, submits the burst at once,
and then runs a busy loop that measures its own interruptions. Every burst finds a server that has just been started,
and a file that is not in the page cache. The ways take turns in each round. `make build/vcpu` comes first.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.own_daemon import own_daemon
from benchmarks.spawner.figures import quantile
from benchmarks.vhost.servers import qemu_storage_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VCPU: Final = Path(__file__).parents[2] / "build" / "vcpu"
FILE_BYTES: Final = 256 << 20
BLOCK_BYTES: Final = 4096
_PATIENCE_S: Final = 60.0
_SETTLE_S: Final = 0.3
"""Between the start of a server and the burst: what the start leaves to do is no part of it."""

_IN_A_GROUP: Final = 'echo "$0" >/proc/self/autogroup; exec "$@"'
"""The vcpu has a scheduling group (autogroup) of its own, as a virtual machine has beside the services of its host.

The weight of a group is shared out to the CPUs as its threads are busy there. In one group with 64 workers on the
other CPU the vcpu would have next to nothing of it on its own.
"""

console = Console(width=None if sys.stdout.isatty() else 190)
Burst = dict[str, float]


class Served(NamedTuple):
    """The file behind a server: the arguments of vcpu, and the processes whose threads may work."""

    arguments: tuple[str, str, str]
    pids: Callable[[], list[int]]


def _nobody() -> list[int]:
    return []


@contextmanager
def idle(file: Path, _sockets: Path) -> Iterator[Served]:
    """No reads at all: what the machine does to the loop by itself."""
    yield Served(("idle", str(file), "-"), _nobody)


@contextmanager
def pool(file: Path, _sockets: Path) -> Iterator[Served]:
    """The pool of 2011, whose workers the vcpu's thread creates."""
    yield Served(("pool", str(file), "-"), _nobody)


@contextmanager
def qemu(file: Path, sockets: Path) -> Iterator[Served]:
    """The thread pool of qemu-storage-daemon, by vhost-user-blk."""
    socket = sockets / "qemu"
    with qemu_storage_daemon(file, socket, aio="threads", direct=False) as pid:
        yield Served(("vhost", str(socket), "-"), lambda: [pid])


@contextmanager
def aiod_vhost(file: Path, sockets: Path) -> Iterator[Served]:
    """The workers of aiod, by vhost-user-blk."""
    socket = sockets / "aiod"
    toml = f'[vhost.disk]\nsocket = "{socket}"\nexport = "bench"\npath = "{file.name}"\n'
    with own_daemon(sockets, file.parent, toml) as daemon:
        yield Served(("vhost", str(socket), "-"), daemon.pids)


@contextmanager
def aiod_elsewhere(file: Path, sockets: Path) -> Iterator[Served]:
    """The same, on all CPUs but the vcpu's: the daemon and its workers inherit the mask of this process."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed - {min(allowed)})
    try:
        with aiod_vhost(file, sockets) as served:
            os.sched_setaffinity(0, allowed)
            yield served
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def aiod_ring(file: Path, sockets: Path) -> Iterator[Served]:
    """The workers of aiod, by its own ring."""
    with own_daemon(sockets, file.parent) as daemon:
        yield Served(("ring", daemon.endpoint, f"bench/{file.name}"), daemon.pids)


WAYS: Final = {
    "idle": idle,
    "pool of 2011": pool,
    "qemu-storage-daemon": qemu,
    "aiod, vhost-user-blk": aiod_vhost,
    "the same, on other CPUs": aiod_elsewhere,
    "aiod, ring": aiod_ring,
}


def drop_from_cache(file: Path) -> None:
    """Let the next reads of the file go to the disk."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def masks_of(pid: int) -> dict[int, set[int]]:
    """The CPUs that each thread of a process may use, by thread."""
    masks = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            masks[int(task.name)] = os.sched_getaffinity(int(task.name))
    return masks


class Setting(NamedTuple):
    """What all bursts have in common."""

    cpu: int
    reads: int
    window_ms: int
    group_nice: int


def burst(served: Served, setting: Setting, seed: int) -> Burst:
    """One burst: the figures of vcpu, and of the threads that may have worked."""
    numbers = (setting.cpu, setting.reads, setting.window_ms, seed, FILE_BYTES // BLOCK_BYTES)
    command = ["sh", "-c", _IN_A_GROUP, str(setting.group_nice), str(VCPU), *served.arguments, *map(str, numbers)]
    figures: Burst = json.loads(
        subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S, start_new_session=True).stdout
    )
    masks = [mask for pid in served.pids() for mask in masks_of(pid).values()]
    figures["stall_us"] = max(figures["submit_us"], figures["longest_gap_us"])
    figures["threads"] += len(masks)
    figures["confined"] += sum(mask == {setting.cpu} for mask in masks)
    return figures


def measure(setting: Setting, rounds: int, directory: str) -> dict[str, list[Burst]]:
    """Bursts of all ways in turn."""
    bursts: dict[str, list[Burst]] = {name: [] for name in WAYS}
    with ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory))) / "disk"
        with file.open("wb") as written:
            for _ in range(FILE_BYTES >> 20):
                written.write(os.urandom(1 << 20))
            os.fsync(written.fileno())
        for seed in track(range(1, rounds + 1), "rounds", console=console, transient=True):
            for name, way in WAYS.items():
                with tempfile.TemporaryDirectory(prefix="aiod-b-") as sockets, way(file, Path(sockets)) as served:
                    drop_from_cache(file)
                    time.sleep(_SETTLE_S)
                    bursts[name].append(burst(served, setting, seed))
    return bursts


def summary(bursts: list[Burst]) -> dict[str, float]:
    """A way's figures, of all its bursts."""
    stalls = [one["stall_us"] for one in bursts]
    gaps = [one["longest_gap_us"] for one in bursts]
    return {
        "submit_p50_us": statistics.median(one["submit_us"] for one in bursts),
        "submit_max_us": max(one["submit_us"] for one in bursts),
        "gap_p50_us": statistics.median(gaps),
        "gap_p99_us": quantile(gaps, 0.99),
        "gap_max_us": max(gaps),
        "stall_p50_us": statistics.median(stalls),
        "stall_p99_us": quantile(stalls, 0.99),
        "stolen_p50_us": statistics.median(one["stolen_us"] for one in bursts),
        "done_p50_us": statistics.median(one["done_us"] for one in bursts),
        "threads": statistics.median(one["threads"] for one in bursts),
        "confined": statistics.median(one["confined"] for one in bursts),
    }


_COLUMNS: Final = {
    "submit_p50_us": "submit, p50",
    "submit_max_us": "max",
    "gap_p50_us": "longest gap, p50",
    "gap_p99_us": "p99",
    "gap_max_us": "max",
    "stall_p50_us": "stall, p50",
    "stall_p99_us": "p99",
    "stolen_p50_us": "all gaps, p50",
    "done_p50_us": "burst done, p50",
    "threads": "threads",
    "confined": "confined",
}


def show(by_name: dict[str, dict[str, float]], setting: Setting, rounds: int) -> None:
    """The table of a terminal."""
    title = f"{rounds} bursts of {setting.reads} uncached reads, a thread pinned to CPU {setting.cpu}; µs"
    table = Table("", title=title)
    for heading in _COLUMNS.values():
        table.add_column(heading, justify="right")
    for name, figures in by_name.items():
        table.add_row(name, *(f"{figures[key]:,.0f}" for key in _COLUMNS))
    console.print(table)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=41, show_default=True, help="Bursts of each way.")
@click.option("--reads", default=64, show_default=True, help="Reads of a burst; at most 256.")
@click.option("--window-ms", default=50, show_default=True, help="How long the loop runs after a burst.")
@click.option("--group-nice", default=0, show_default=True, help="Of the vcpu's scheduling group, if others are busy.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the file is made; not a tmpfs.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a PNG there.")
def main(
    rounds: int,
    reads: int,
    window_ms: int,
    group_nice: int,
    directory: str,
    output: Path | None,
    plot: Path | None,
) -> None:
    """Measure how bursts disturb the pinned thread that submits them."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise click.ClickException("needs two CPUs: one is the vcpu's, and another must be there for workers")
    setting = Setting(cpus[0], reads, window_ms, group_nice)
    bursts = measure(setting, rounds, directory)
    show({name: summary(ones) for name, ones in bursts.items()}, setting, rounds)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "nice": os.getpriority(os.PRIO_PROCESS, 0)}
    path = output or Path(__file__).parent.parent / "results" / f"bursts-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"bursts": bursts, "setting": setting._asdict(), "machine": machine}, indent=2) + "\n")
    console.print(f"figures: {path}")
    if plot is not None:
        from benchmarks.guest.plot import draw  # noqa: PLC0415 - only --plot needs matplotlib

        draw(bursts, plot)
        console.print(f"picture: {plot}")


if __name__ == "__main__":
    main()
