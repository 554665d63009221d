"""python -m benchmarks.arrays: Zarr arrays in aiod's store, beside Zarr's LocalStore and fsspec's LocalFileSystem.

All chunks are in the page cache and not compressed, so that the store is what is measured. Contenders take turns, round
by round, in one process; each figure is the median over the rounds. CPU time is that of this process and of the daemon:
it counts on a busy machine as well.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import numpy as np
import zarr
from rich.console import Console
from rich.table import Table
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from aiod_client.zarr import AiodStore
from benchmarks.matrix.cost import between, of_threads
from benchmarks.own_daemon import own_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE: Final = 2048
"""The array has SIDE x SIDE numbers of 4 bytes: 16 MiB."""
CHUNKS: Final = {"1 MiB": 512, "256 KiB": 256, "64 KiB": 128, "16 KiB": 64}
SHARD: Final = 1024
PARTS: Final = 50
"""Reads of parts of shards in a round."""
GETS: Final = 200

console = Console()


class Figure(NamedTuple):
    """What one turn took, for each array, read or get."""

    wall_us: float
    cpu_us: float


Figures = dict[str, dict[str, list[Figure]]]
"""Scenario -> store -> one figure of each round."""


class Meter:
    """Takes the figures. The contenders of a scenario take turns, and begin with another one each round."""

    def __init__(self, pids: list[int]) -> None:
        self.figures: Figures = {}
        self._pids = pids

    def take(self, scenario: str, store: str, call: Callable[[], Any], count: int = 1) -> None:
        """Note what call() takes, which is `count` operations."""
        threads, before_s = of_threads(self._pids), time.perf_counter()
        call()
        taken_s = time.perf_counter() - before_s
        cost = between(threads, of_threads(self._pids))
        figure = Figure(taken_s * 1e6 / count, cost.cpu_s * 1e6 / count)
        self.figures.setdefault(scenario, {}).setdefault(store, []).append(figure)


def measure_array(meter: Meter, name: str, store: Any, label: str, data: Any) -> None:
    """Write and read an array of square chunks."""
    side = CHUNKS[label]
    array = zarr.create_array(
        store,
        name=label.replace(" ", ""),
        shape=data.shape,
        chunks=(side, side),
        dtype=data.dtype,
        compressors=None,
        overwrite=True,
    )

    def write() -> None:
        array[:] = data

    meter.take(f"write, chunks of {label}", name, write)
    meter.take(f"read, chunks of {label}", name, lambda: array[:])


def measure_shards(meter: Meter, name: str, store: Any, data: Any) -> None:
    """Read parts of shards: the index at the end of a file, then a range of it."""
    array = zarr.create_array(
        store,
        name="shards",
        shape=data.shape,
        shards=(SHARD, SHARD),
        chunks=(128, 128),
        dtype=data.dtype,
        compressors=None,
        overwrite=True,
    )
    array[:] = data
    places = np.random.default_rng(1).integers(0, SIDE // 128, (PARTS, 2)) * 128

    def read() -> None:
        for row, column in places:
            array[row : row + 128, column : column + 128]

    meter.take("read 64 KiB of a shard of 4 MiB", name, read, PARTS)


def measure_gets(meter: Meter, name: str, store: Any) -> None:
    """get() of one chunk after another, in Zarr's loop; and without a loop, where the store can."""
    keys = [f"64KiB/c/{row}/{column}" for row in range(16) for column in range(16)][:GETS]
    prototype = default_buffer_prototype()

    async def get() -> None:
        for key in keys:
            await store.get(key, prototype)

    async def get_together() -> None:
        await asyncio.gather(*(store.get(key, prototype) for key in keys))

    meter.take("get of 64 KiB, one after the other", name, lambda: sync(get()), GETS)
    meter.take("get of 64 KiB, 200 at once", name, lambda: sync(get_together()), GETS)
    if hasattr(store, "get_sync"):
        meter.take("get_sync of 64 KiB", name, lambda: [store.get_sync(key) for key in keys], GETS)


def show(figures: Figures) -> None:
    """A table of medians, and the peers' in relation to aiod's."""
    names = ["aiod", "LocalStore", "fsspec, local", "fsspec, aiod"]
    head = [f"{name}: time, CPU (us)" for name in names] + [f"{peer}, of aiod's" for peer in names[1:]]
    table = Table("scenario", *head, title="arrays of 16 MiB")
    for scenario, found in figures.items():
        medians = {
            name: Figure(*(statistics.median(column) for column in zip(*turns, strict=True)))
            for name, turns in found.items()
        }
        aiod = medians["aiod"]
        shown = [
            f"{medians[name].wall_us:,.0f}, {medians[name].cpu_us:,.0f}" if name in medians else "" for name in names
        ]
        ratios = [
            f"{medians[name].wall_us / aiod.wall_us:.2f}, {medians[name].cpu_us / aiod.cpu_us:.2f}"
            if name in medians
            else ""
            for name in names[1:]
        ]
        table.add_row(scenario, *shown, *ratios)
    console.print(table)


@click.command()
@click.option("--rounds", default=7, show_default=True)
def main(rounds: int) -> None:
    """Measure, and print the table."""
    data = np.random.default_rng(0).random((SIDE, SIDE), dtype="f4")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, tempfile.TemporaryDirectory() as runtime_dir:
        root = Path(directory)
        for name in ("aiod", "local", "fsspec", "aiod-fsspec"):
            (root / name).mkdir()
        with own_daemon(Path(runtime_dir), root) as daemon:
            stores = {
                "aiod": AiodStore("bench/aiod", endpoint=daemon.endpoint),
                "LocalStore": LocalStore(root / "local"),
                "fsspec, local": FsspecStore.from_url(f"file://{root}/fsspec", storage_options={"auto_mkdir": True}),
                "fsspec, aiod": FsspecStore.from_url(
                    "aiod://bench/aiod-fsspec", storage_options={"endpoint": daemon.endpoint}
                ),
            }
            meter = Meter([os.getpid(), *daemon.pids()])
            turns = list(stores.items())
            for _ in range(rounds):
                for label in CHUNKS:
                    for name, store in turns:
                        measure_array(meter, name, store, label, data)
                for name, store in turns:
                    measure_shards(meter, name, store, data)
                for name, store in turns:
                    measure_gets(meter, name, store)
                turns.append(turns.pop(0))
    show(meter.figures)


if __name__ == "__main__":
    main()
