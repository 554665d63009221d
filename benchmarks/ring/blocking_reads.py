"""python -m benchmarks.ring.blocking_reads SECONDS KIND ARGUMENT...: 4 KiB random reads, one at a time.

KIND   aiod ENDPOINT FILE TRANSPORT   the blocking client
       libnbd URI                     libnbd's Python binding
       executor PATH                  os.pread in a ThreadPoolExecutor

Prints {"rate": operations/s, "p50_us": ..., "p99_us": ..., "p999_us": ...}. The system's Python runs it too, which has
libnbd and nothing of aiod's: so what one kind needs is imported by that kind.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from benchmarks.offsets import random_offsets
from benchmarks.ring.load import FILE_BYTES, SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Read = Callable[[int], Any]
    """Reads the 4 KiB at an offset."""


@contextmanager
def aiod(endpoint: str, file: str, transport: Any) -> Iterator[Read]:
    """The blocking client of aiod."""
    import aiod_client

    with aiod_client.connect(endpoint, transport=transport) as client, client.open(file, "r") as opened:
        yield lambda offset: opened.pread(SMALL_BYTES, offset)


@contextmanager
def libnbd(uri: str) -> Iterator[Read]:
    """The blocking calls of libnbd."""
    import nbd

    handle = nbd.NBD()
    handle.connect_uri(uri)
    yield lambda offset: handle.pread(SMALL_BYTES, offset)
    handle.shutdown()


@contextmanager
def executor(path: str) -> Iterator[Read]:
    """os.pread in a thread of a pool."""
    fd = os.open(path, os.O_RDONLY)
    with ThreadPoolExecutor() as pool:
        yield lambda offset: pool.submit(os.pread, fd, SMALL_BYTES, offset).result()
    os.close(fd)


KINDS: Final[dict[str, Callable[..., AbstractContextManager[Read]]]] = {
    "aiod": aiod,
    "libnbd": libnbd,
    "executor": executor,
}


def measure(read: Read, seconds: float) -> dict[str, float]:
    """Read one block after another for `seconds`."""
    offsets = random_offsets(FILE_BYTES, SMALL_BYTES)
    taken_ns = []
    started_ns = time.perf_counter_ns()
    end_ns = started_ns + int(seconds * 1e9)
    for offset in itertools.cycle(offsets):
        began_ns = time.perf_counter_ns()
        if began_ns > end_ns:
            break
        data = read(offset)
        taken_ns.append(time.perf_counter_ns() - began_ns)
        if len(data) != SMALL_BYTES:
            raise RuntimeError(f"{len(data)} of {SMALL_BYTES} bytes at {offset}")
    elapsed_s = (time.perf_counter_ns() - started_ns) / 1e9
    taken_ns.sort()
    return {
        "rate": len(taken_ns) / elapsed_s,
        "p50_us": taken_ns[len(taken_ns) // 2] / 1e3,
        "p99_us": taken_ns[len(taken_ns) * 99 // 100] / 1e3,
        "p999_us": taken_ns[len(taken_ns) * 999 // 1000] / 1e3,
    }


def main() -> None:
    """Run the loop, as described above."""
    seconds, kind, *arguments = sys.argv[1:]
    with KINDS[kind](*arguments) as read:
        figures = measure(read, float(seconds))
    print(json.dumps(figures))


main()
