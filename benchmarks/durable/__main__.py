"""python -m benchmarks.durable: 16 tasks that write 4 KiB and flush, on one file, one pair after another.

On the disk of `--directory`, and on one that is slow to flush (slow_disk.py), where those that reach it are counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table

import aiod_client.aio
from benchmarks.durable.core_pairs import build, pairs_per_s
from benchmarks.durable.slow_disk import DELAY_MS, SlowDisk, slow_disk
from benchmarks.nbd_peers import fio_flushing, nbdkit, qemu_nbd
from benchmarks.own_daemon import own_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS: Final = 16
BLOCK_BYTES: Final = 4096
FILE_BYTES: Final = TASKS * BLOCK_BYTES

console = Console()


def by_aiod(endpoint: str, name: str) -> Callable[[float], float]:
    """16 asyncio tasks, each awaiting its write and then its flush."""

    async def task(file: aiod_client.aio.File, number: int, end_s: float) -> int:
        data = bytes([number]) * BLOCK_BYTES
        for done in itertools.count():
            if time.perf_counter() > end_s:
                return done
            await file.pwrite(data, number * BLOCK_BYTES)
            await file.flush()
        raise AssertionError

    async def measure(seconds: float) -> float:
        async with aiod_client.aio.connect(endpoint) as client, await client.open(f"bench/{name}", "r+") as file:
            started_s = time.perf_counter()
            done = await asyncio.gather(*(task(file, number, started_s + seconds) for number in range(TASKS)))
            return sum(done) / (time.perf_counter() - started_s)

    return lambda seconds: asyncio.run(measure(seconds))


def by_threads(path: Path, *, one_at_a_time: bool) -> Callable[[float], float]:
    """16 threads of one process, each with its own pwrite and fdatasync; at once, or under one lock."""
    turn = threading.Lock()

    def work(fd: int, number: int, end_s: float, done: list[int]) -> None:
        data = bytes([number]) * BLOCK_BYTES
        while time.perf_counter() < end_s:
            os.pwrite(fd, data, number * BLOCK_BYTES)
            if one_at_a_time:
                with turn:
                    os.fdatasync(fd)
            else:
                os.fdatasync(fd)
            done[number] += 1

    def measure(seconds: float) -> float:
        fd = os.open(path, os.O_RDWR)
        done = [0] * TASKS
        started_s = time.perf_counter()
        threads = [
            threading.Thread(target=work, args=(fd, number, started_s + seconds, done)) for number in range(TASKS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s = time.perf_counter() - started_s
        os.close(fd)
        return sum(done) / elapsed_s

    return measure


def by_nbd(uri: str) -> Callable[[float], float]:
    """An NBD server driven by fio: 16 jobs, each flushing after every write."""
    return lambda seconds: fio_flushing(uri, jobs=TASKS, block_bytes=BLOCK_BYTES, seconds=max(1, round(seconds)))


def contenders(stack: ExitStack, sockets: Path, file: Path) -> dict[str, Callable[[float], float]]:
    """All contenders on `file`."""
    daemon = stack.enter_context(own_daemon(sockets, file.parent))
    program = build(sockets)
    return {
        "aiod": by_aiod(daemon.endpoint, file.name),
        "its core alone": lambda seconds: pairs_per_s(program, "group", TASKS, seconds, file),
        "its core, each its own fdatasync": lambda seconds: pairs_per_s(program, "own", TASKS, seconds, file),
        "threads, each its own fdatasync": by_threads(file, one_at_a_time=False),
        "threads, one fdatasync at a time": by_threads(file, one_at_a_time=True),
        "nbdkit": by_nbd(stack.enter_context(nbdkit(file, sockets / "k.sock"))),
        "qemu-nbd": by_nbd(stack.enter_context(qemu_nbd(file, sockets / "q.sock"))),
    }


def measure(
    runs: dict[str, Callable[[float], float]], rounds: int, seconds: float, slow: SlowDisk | None
) -> dict[str, Any]:
    """The median figures of each contender; contenders take turns."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    flushes: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = slow.flushes() if slow else 0
            rate = run(seconds)
            rates[name].append(rate)
            if slow:
                flushes[name].append((slow.flushes() - before) / (rate * seconds))
    return {
        name: {
            "pairs_per_s": statistics.median(rates[name]),
            "flushes_per_pair": statistics.median(flushes[name]) if slow else None,
        }
        for name in runs
    }


def show(title: str, figures: dict[str, Any]) -> None:
    """The table of one disk."""
    table = Table("contender", "pairs/s", "beside aiod", "flushes at the disk, per pair", title=title)
    aiod = figures["aiod"]["pairs_per_s"]
    for name, value in figures.items():
        flushes = value["flushes_per_pair"]
        rate = value["pairs_per_s"]
        table.add_row(name, f"{rate:,.0f}", f"{rate / aiod:.2f}", "" if flushes is None else f"{flushes:.2f}")
    console.print(table)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, help="Rounds; contenders take turns in each.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of one contender's turn.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the fast disk's file is made.")  # noqa: S108
@click.option("--output", type=click.Path(path_type=Path), help="JSON of the figures; default: benchmarks/results/.")
def main(rounds: int, seconds: float, directory: str, output: Path | None) -> None:
    """Measure writes that are made durable one by one: aiod, threads, nbdkit and qemu-nbd, in one run."""
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        fast = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory))) / "file"
        fast.write_bytes(bytes(FILE_BYTES))
        sockets = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-"))) for _ in range(2)]
        slow = stack.enter_context(slow_disk(sockets[1]))
        on_fast = contenders(stack, sockets[0], fast)
        on_slow = contenders(stack, sockets[1], slow.file)
        result["fast"] = measure(on_fast, rounds, seconds, None)
        result["slow"] = measure(on_slow, rounds, seconds, slow)
    show(f"the disk of {directory}", result["fast"])
    show(f"a disk whose flush takes {DELAY_MS} ms", result["slow"])
    result["machine"] = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    path = output or Path(__file__).parents[1] / "results" / f"durable-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
