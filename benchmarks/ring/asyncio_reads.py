"""python -m benchmarks.ring.asyncio_reads SECONDS LOOP KIND ARGUMENT...: 4 KiB random reads by 32 coroutines.

LOOP   uvloop or asyncio
KIND   aiod ENDPOINT FILE TRANSPORT             aiod's asyncio client
       caio PATH linux_aio|linux_uring [deferred]   caio's context of that kind; deferred: it submits in batches
       executor PATH                            os.pread in the loop's executor
       aiofiles PATH                            seek and read; each coroutine has the file open for itself

Each coroutine awaits one read after another. Prints {"rate": operations/s}.
"""

# ruff: noqa: PLC0415 - what one kind needs is imported by that kind: the others are to run where it is missing

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks.offsets import random_offsets
from benchmarks.ring.load import DEPTH, FILE_BYTES, SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Read = Callable[[int], Awaitable[Any]]
    """Reads the 4 KiB at an offset."""


@asynccontextmanager
async def aiod(endpoint: str, file: str, transport: Any) -> AsyncIterator[list[Read]]:
    """One connection and one open file for all."""
    import aiod_client.aio

    connecting = aiod_client.aio.connect(endpoint, transport=transport)
    async with connecting as client, await client.open(file, "r") as opened:
        yield [lambda offset: opened.pread(SMALL_BYTES, offset)] * DEPTH


@asynccontextmanager
async def caio(path: str, kind: str, mode: str = "") -> AsyncIterator[list[Read]]:
    """One context for all coroutines; /proc proves that it is of that kind."""
    context_type = importlib.import_module(f"caio.{kind}_asyncio").AsyncioContext
    fd = os.open(path, os.O_RDONLY)
    async with context_type(max_requests=DEPTH, deferred=mode == "deferred") as context:
        check_mapped({"linux_aio": "/[aio]", "linux_uring": "[io_uring]"}[kind])
        yield [lambda offset: context.read(SMALL_BYTES, fd, offset)] * DEPTH
    os.close(fd)


def check_mapped(trace: str) -> None:
    """Raise RuntimeError if the process has no such mapping: then caio uses another kind of context."""
    if trace not in Path("/proc/self/maps").read_text():
        raise RuntimeError(f"{trace} is not mapped")


@asynccontextmanager
async def executor(path: str) -> AsyncIterator[list[Read]]:
    """os.pread in the event loop's default executor."""
    loop = asyncio.get_running_loop()
    fd = os.open(path, os.O_RDONLY)
    yield [lambda offset: loop.run_in_executor(None, os.pread, fd, SMALL_BYTES, offset)] * DEPTH
    os.close(fd)


@asynccontextmanager
async def aiofiles(path: str) -> AsyncIterator[list[Read]]:
    """One open file for each coroutine, because files have a position."""
    opener = importlib.import_module("aiofiles").open

    def reader(file: Any) -> Read:
        async def read(offset: int) -> bytes:
            await file.seek(offset)
            data: bytes = await file.read(SMALL_BYTES)
            return data

        return read

    async with AsyncExitStack() as stack:
        yield [reader(await stack.enter_async_context(opener(path, "rb"))) for _ in range(DEPTH)]


KINDS: Final[dict[str, Callable[..., AbstractAsyncContextManager[list[Read]]]]] = {
    "aiod": aiod,
    "caio": caio,
    "executor": executor,
    "aiofiles": aiofiles,
}


async def one_by_one(read: Read, offsets: list[int], end_s: float) -> int:
    """The number of reads that one coroutine makes until `end_s`."""
    for done, offset in enumerate(itertools.cycle(offsets)):
        if time.perf_counter() > end_s:
            return done
        data = await read(offset)
        if len(data) != SMALL_BYTES:
            raise RuntimeError(f"{len(data)} of {SMALL_BYTES} bytes at {offset}")
    raise AssertionError


async def measure(kind: str, arguments: list[str], seconds: float) -> dict[str, float]:
    """Run all coroutines for `seconds`."""
    offsets = random_offsets(FILE_BYTES, SMALL_BYTES)
    async with KINDS[kind](*arguments) as reads:
        started_s = time.perf_counter()
        coroutines = [
            one_by_one(read, offsets[number::DEPTH], started_s + seconds) for number, read in enumerate(reads)
        ]
        done = await asyncio.gather(*coroutines)
        return {"rate": sum(done) / (time.perf_counter() - started_s)}


def main() -> None:
    """Run the loop, as described above."""
    seconds, loop, kind, *arguments = sys.argv[1:]
    factory = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[loop]
    with asyncio.Runner(loop_factory=factory) as runner:
        figures = runner.run(measure(kind, arguments, float(seconds)))
    print(json.dumps(figures))


main()
