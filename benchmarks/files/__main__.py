"""python -m benchmarks.files: whole files, stats and opens by aiod's clients, beside the system calls in the process.

Contenders take turns, round by round, in one process; each figure is the median over the rounds. All files are in the
page cache. Microseconds are those of one call; rates those of 1, 16 and 64 tasks of one event loop, and of 8 processes
that read the same files.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table

import aiod_client
import aiod_client.aio
from benchmarks.files.by_os import list_by_os, names_in, open_by_os, read_by_os, write_by_os
from benchmarks.files.processes import READERS, Readers, readers
from benchmarks.own_daemon import own_daemon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SIZES: Final = {"4 KiB": 4096, "100 KiB": 102400}
TASKS: Final = (1, 16, 64)

console = Console()

Figures = dict[str, dict[str, list[float]]]
"""Scenario -> contender -> one figure of each round."""


def microseconds(call: Callable[[str], Any], names: Iterator[str], count: int) -> float:
    """The median of `count` calls, each of another name."""
    taken = []
    for name in itertools.islice(names, count):
        before_ns = time.perf_counter_ns()
        call(name)
        taken.append(time.perf_counter_ns() - before_ns)
    return statistics.median(taken) / 1000


async def rate(call: Callable[[str], Awaitable[Any]], names: Iterator[str], tasks: int, count: int) -> float:
    """Calls a second of `tasks` tasks, `count` of them together."""
    todo = itertools.islice(names, count)

    async def work() -> None:
        for name in todo:
            await call(name)

    before_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return count / (time.perf_counter() - before_s)


def measure_blocking(figures: Figures, client: aiod_client.Client, root: Path, files: int, count: int) -> None:
    """One round of the blocking client and its peers."""
    pool = ThreadPoolExecutor(8)

    def pooled(call: Callable[[str], Any]) -> Callable[[str], Any]:
        return lambda name: pool.submit(call, name).result()

    write: dict[str, Callable[[str], Any]] = {
        "aiod": lambda name: client.write_file(name, DATA),
        "os": lambda name: write_by_os(name, DATA),
    }
    scenarios: dict[str, dict[str, Callable[[str], Any]]] = {
        "open + close": {"aiod": lambda name: client.open(name).close(), "os": open_by_os, "pool": pooled(open_by_os)},
        "stat": {"aiod": client.stat, "os": os.stat, "pool": pooled(os.stat)},
        "write 4 KiB": write | {"pool": pooled(write["os"])},
    }
    for size in SIZES:
        scenarios[f"read {size}"] = {"aiod": client.read_file, "os": read_by_os, "pool": pooled(read_by_os)}
    for scenario, contenders in scenarios.items():
        directory = scenario.removeprefix("read ") if scenario.startswith("read ") else "4 KiB"
        directory = "written" if scenario.startswith("write") else directory
        for contender, call in contenders.items():
            names = names_in(f"bench/{directory}" if contender == "aiod" else f"{root}/{directory}", files)
            figures.setdefault(scenario, {}).setdefault(contender, []).append(microseconds(call, names, count))
    pool.shutdown()


def measure_names(figures: Figures, client: aiod_client.Client, root: Path, count: int) -> None:
    """Listings, beside os.scandir() with stats; and stats of names that are not there."""

    def scan(path: str) -> None:
        for entry in client.scandir(path):
            entry.stat()

    scenarios: dict[str, dict[str, Callable[[str], Any]]] = {
        "list": {"aiod": client.list, "os": list_by_os},
        "scandir + stat": {"aiod": scan, "os": list_by_os},
    }
    for scenario, contenders in scenarios.items():
        for contender, call in contenders.items():
            path = "bench/4 KiB" if contender == "aiod" else f"{root}/4 KiB"
            figures.setdefault(scenario, {}).setdefault(contender, []).append(microseconds(call, iter([path]), 1))
    for contender, exists in (("aiod", client.exists), ("os", os.path.exists)):
        path = "bench/absent" if contender == "aiod" else f"{root}/absent"
        taken = microseconds(exists, itertools.repeat(path), count)
        figures.setdefault("exists, absent", {}).setdefault(contender, []).append(taken)


async def measure_tasks(figures: Figures, endpoint: str, root: Path, files: int, count: int) -> None:
    """One round of the asyncio client and its peers."""
    async with aiod_client.aio.connect(endpoint) as client:

        async def open_read_close(name: str) -> None:
            async with await client.open(name) as file:
                await file.pread(4096, 0)

        async def threaded(name: str) -> bytes:
            return await asyncio.to_thread(read_by_os, name)

        contenders: dict[str, dict[str, Callable[[str], Awaitable[Any]]]] = {
            f"read {size}": {"aiod": client.read_file, "to_thread": threaded} for size in SIZES
        }
        contenders["open + pread + close"] = {"aiod": open_read_close, "to_thread": threaded}
        with suppress(ModuleNotFoundError):
            by_aiofiles = aiofiles_reader()
            for size in SIZES:
                contenders[f"read {size}"]["aiofiles"] = by_aiofiles
        for scenario, peers in contenders.items():
            directory = scenario.removeprefix("read ") if scenario.startswith("read ") else "4 KiB"
            for tasks, (contender, call) in itertools.product(TASKS, peers.items()):
                names = names_in(f"bench/{directory}" if contender == "aiod" else f"{root}/{directory}", files)
                found = await rate(call, names, tasks, count)
                figures.setdefault(f"{scenario}, {tasks} tasks", {}).setdefault(contender, []).append(found)


def measure_processes(figures: Figures, processes: Readers, root: Path, files: int, count: int) -> None:
    """One round of processes that read the same files."""
    for size in SIZES:
        for contender, directory in (("aiod", f"bench/{size}"), ("os", f"{root}/{size}")):
            found = processes.rate(directory, files, count, by_aiod=contender == "aiod")
            figures.setdefault(f"read {size}", {}).setdefault(contender, []).append(found)


def aiofiles_reader() -> Callable[[str], Awaitable[Any]]:
    """Open, read, close by aiofiles."""
    opener = importlib.import_module("aiofiles").open

    async def read(name: str) -> Any:
        async with opener(name, "rb") as file:
            return await file.read()

    return read


def show(title: str, unit: str, figures: Figures) -> None:
    """A table of medians, with aiod's advantage over each peer."""
    peers = list(dict.fromkeys(peer for found in figures.values() for peer in found))
    table = Table(
        "scenario", *(f"{peer} ({unit})" for peer in peers), *(f"x {peer}" for peer in peers[1:]), title=title
    )
    for scenario, found in figures.items():
        medians = {peer: statistics.median(values) for peer, values in found.items()}
        shown = [f"{medians[peer]:,.1f}" if peer in medians else "" for peer in peers]
        ratios = [_advantage(unit, medians, peer) for peer in peers[1:]]
        table.add_row(scenario, *shown, *ratios)
    console.print(table)


def _advantage(unit: str, medians: dict[str, float], peer: str) -> str:
    if peer not in medians:
        return ""
    faster = medians[peer] / medians["aiod"] if unit == "us" else medians["aiod"] / medians[peer]
    return f"{faster:.2f}"


DATA: Final = os.urandom(4096)


@click.command()
@click.option("--files", default=10_000, show_default=True, help="Files of each size.")
@click.option("--count", default=2000, show_default=True, help="Calls of each contender in a round.")
@click.option("--rounds", default=5, show_default=True)
def main(files: int, count: int, rounds: int) -> None:
    """Measure, and print the tables."""
    latencies: Figures = {}
    rates: Figures = {}
    together: Figures = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, tempfile.TemporaryDirectory() as runtime_dir:
        root = Path(directory)
        for name, size in (SIZES | {"written": 4096}).items():
            (root / name).mkdir()
            for number in range(files):
                (root / name / str(number)).write_bytes(DATA * (size // len(DATA)))
        with (
            own_daemon(Path(runtime_dir), root) as daemon,
            aiod_client.connect(daemon.endpoint) as client,
            readers(daemon.endpoint) as processes,
        ):
            for _ in range(rounds):
                measure_blocking(latencies, client, root, files, count)
                measure_names(latencies, client, root, count)
                asyncio.run(measure_tasks(rates, daemon.endpoint, root, files, count))
                measure_processes(together, processes, root, files, count)
    show("blocking, p50 of one call", "us", latencies)
    show("asyncio, one event loop", "1/s", rates)
    show(f"{READERS} processes at once, blocking", "1/s", together)


if __name__ == "__main__":
    main()
