"""python -m benchmarks.matrix.python_client JSON: one client in Python; prints one JSON document as aiod-bench does.

JSON has the style (blocking, threads, asyncio or uvloop), the library, its address, and the work. It says "ready" when
it has connected, and begins at a line on its standard input. The system's Python runs it too, for libnbd.
"""

# ruff: noqa: PLC0415 - what one style needs is imported by that style: the others are to run where it is missing

from __future__ import annotations

import itertools
import json
import random
import resource
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from benchmarks.latency import bucket_ns
from benchmarks.matrix.work import FILE_BYTES, WORKS
from benchmarks.offsets import random_offsets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.latency import Histogram
    from benchmarks.matrix.work import Work


class Order:
    """The task of one client."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.style: str = said["style"]
        self.library: str = said["library"]
        self.options: dict[str, Any] = said.get("options", {})
        self.address: str = said["address"]
        self.work: Work = WORKS[said["work"]]
        self.direct: bool = said["direct"]
        self.depth: int = said["depth"]
        self.seconds: float = said["seconds"]
        self._row = self._make_row()

    def requests(self, share: float = 0.0) -> Iterator[tuple[str, int]]:
        """An endless sequence of ("read" or "write", offset), from that share of the offsets on."""
        begin = int(share * len(self._row))
        yield from self._row[begin:]
        yield from itertools.cycle(self._row)

    def _make_row(self) -> list[tuple[str, int]]:
        blocks = FILE_BYTES // self.work.block_bytes
        offsets = (
            random_offsets(FILE_BYTES, self.work.block_bytes)
            if self.work.random
            else [block * self.work.block_bytes for block in range(blocks)]
        )
        generator = random.Random(2)  # noqa: S311
        kinds = ["read" if generator.randrange(100) < self.work.reads_percent else "write" for _ in offsets]
        return list(zip(kinds, offsets, strict=True))


class Tally:
    """The results of one client."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.operations = 0
        self.latency: Histogram = Counter()

    def add(self, kind: str, began_ns: int, result: Any) -> None:
        """Count a request that has just completed. RuntimeError if it read less than a block."""
        taken_ns = time.perf_counter_ns() - began_ns
        if kind == "read":
            length = result if isinstance(result, int) else len(result)
            if length != self._work.block_bytes:
                raise RuntimeError(f"{length} of {self._work.block_bytes} bytes were read")
        elif kind == "write" and self._work.flush:
            return  # its flush counts
        self.operations += 1
        self.latency[bucket_ns(taken_ns)] += 1


class Stopwatch:
    """The time of a turn: from the harness's signal until the end."""

    def __init__(self, order: Order) -> None:
        """Print that this client is ready, and wait for the signal."""
        print("ready", flush=True)
        sys.stdin.readline()
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        self._began_ns = time.perf_counter_ns()
        self.end_ns = self._began_ns + int(order.seconds * 1e9)
        self._block_bytes = order.work.block_bytes

    def document(self, tallies: list[Tally]) -> dict[str, Any]:
        """The figures of the client."""
        elapsed_s = (time.perf_counter_ns() - self._began_ns) / 1e9
        now, before = resource.getrusage(resource.RUSAGE_SELF), self._before
        operations = sum(tally.operations for tally in tallies)
        latency: Histogram = Counter()
        for tally in tallies:
            latency.update(tally.latency)
        return {
            "operations": operations,
            "iops": operations / elapsed_s,
            "bandwidth_bytes": operations * self._block_bytes / elapsed_s,
            "cpu_s": now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime,
            "switches": now.ru_nvcsw + now.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
            "latency_ns": latency,
        }


def main() -> None:
    """Run one client, as described above."""
    order = Order(json.loads(sys.argv[1]))
    if order.style in {"blocking", "threads"}:
        from benchmarks.matrix import python_blocking

        document = python_blocking.run(order)
    else:
        from benchmarks.matrix import python_asyncio

        document = python_asyncio.run(order)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
