"""python -m benchmarks.tcp.load ENDPOINT PREFIX: the clients of one daemon, which run at the other end of the link.

Reads a cell's JSON from each line of standard input, and answers with a line of JSON: operations a second, the median
latency where one request is in flight, and the CPU time of this process for an operation.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import aiod_client
from benchmarks.offsets import random_offsets
from benchmarks.tcp.cells import FILE_BYTES, Cell
from benchmarks.tcp.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable


def one_by_one(file: aiod_client.File, cell: Cell, seconds: float) -> tuple[int, float, float]:
    """pread() or pwrite(); number of operations, seconds, and their median."""
    data = os.urandom(cell.block_bytes)
    call: Callable[[int], Any]
    call = (lambda at: file.pread(cell.block_bytes, at)) if cell.op == "read" else lambda at: file.pwrite(data, at)
    taken = []
    started_s = began_s = time.perf_counter()
    for offset in random_offsets(FILE_BYTES, cell.block_bytes):
        call(offset)
        ended_s = time.perf_counter()
        taken.append(ended_s - began_s)
        began_s = ended_s
        if ended_s - started_s > seconds:
            break
    return len(taken), began_s - started_s, statistics.median(taken)


def batches(file: aiod_client.File, cell: Cell, seconds: float) -> tuple[int, float, float]:
    """submit() in batches, and another batch for each that is done; as one_by_one()."""
    what: Any = os.urandom(cell.block_bytes) if cell.op == "write" else cell.block_bytes
    operation = "read_view" if cell.op == "view" else cell.op
    offsets = random_offsets(FILE_BYTES, cell.block_bytes)
    window: list[list[Any]] = []
    at = done = 0
    started_s = time.perf_counter()
    end_s = started_s + seconds
    while time.perf_counter() < end_s:
        while len(window) < cell.depth // cell.batch:
            window.append(file.submit([(operation, what, offset) for offset in offsets[at : at + cell.batch]]))
            at = (at + cell.batch) % len(offsets)
        for future in window[0]:
            future.result()
        left = [futures for futures in window[1:] if not all(future.done() for future in futures)]
        done += (len(window) - len(left)) * cell.batch
        window = left
    elapsed_s = time.perf_counter() - started_s
    for futures in window:
        for future in futures:
            future.result()
    return done, elapsed_s, 0.0


def main() -> None:
    """Serve the cells."""
    endpoint, keys = sys.argv[1], sys.argv[2:]
    named: dict[str, Any] = {"key": keys[0], "server_key": keys[1]} if keys else {}
    with aiod_client.connect(endpoint, **named) as client, client.open("bench/file", "r+") as file:
        prepared = Prepared(endpoint, *keys)
        print("ready", flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            cell, seconds = Cell(**asked["cell"]), asked["seconds"]
            random_offsets(FILE_BYTES, cell.block_bytes)  # made before the measurement
            before = resource.getrusage(resource.RUSAGE_SELF)
            if asked["prepared"]:
                done, elapsed_s, p50_s = prepared.run(cell, seconds)
            else:
                done, elapsed_s, p50_s = (one_by_one if cell.depth == 1 else batches)(file, cell, seconds)
            after = resource.getrusage(resource.RUSAGE_SELF)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            figures = {
                "rate": done / elapsed_s,
                "p50_us": p50_s * 1e6,
                "operations": done,
                "client_us": cpu_s / done * 1e6,
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
