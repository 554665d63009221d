"""Several processes that read one data set at once, each by a blocking client of its own, or by the system calls."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiod_client
from benchmarks.files.by_os import names_in, read_by_os

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

READERS = 8


class Readers:
    """READERS processes that wait for work."""

    def __init__(self, ends: list[Connection[Any, Any]]) -> None:
        """`ends` lead to one process each."""
        self._ends = ends

    def rate(self, directory: str, files: int, count: int, *, by_aiod: bool) -> float:
        """Files a second that all read together, `count` each, from the first one's begin to the last one's end."""
        for end in self._ends:
            end.send((directory, files, count, by_aiod))
        begins_s, ends_s = zip(*(end.recv() for end in self._ends), strict=True)
        return float(count * len(self._ends) / (max(ends_s) - min(begins_s)))


def _work(endpoint: str, end: Connection[Any, Any], together: Any) -> None:
    with aiod_client.connect(endpoint) as client:
        while (job := end.recv()) is not None:
            directory, files, count, by_aiod = job
            read = client.read_file if by_aiod else read_by_os
            names = names_in(directory, files)
            read(next(names))
            together.wait()
            began_s = time.monotonic()
            for name in itertools.islice(names, count):
                read(name)
            end.send((began_s, time.monotonic()))


@contextmanager
def readers(endpoint: str) -> Iterator[Readers]:
    """Start the processes, each with a client of `endpoint`; they end afterwards."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(READERS)
    pipes = [context.Pipe() for _ in range(READERS)]
    processes = [context.Process(target=_work, args=(endpoint, theirs, together), daemon=True) for _, theirs in pipes]
    for process, (_, theirs) in zip(processes, pipes, strict=True):
        process.start()
        theirs.close()
    try:
        yield Readers([ours for ours, _ in pipes])
    finally:
        together.abort()
        for ours, _ in pipes:
            ours.send(None)
        for process in processes:
            process.join()
