"""Coroutines that each await one request after another, by one of several libraries."""

# ruff: noqa: PLC0415 - what one library needs is imported by its function: the others are to run where it is missing

from __future__ import annotations

import asyncio
import importlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.matrix.plain_file import PlainFile
from benchmarks.matrix.python_client import Order, Stopwatch, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

Calls = dict[str, "Callable[[int], Awaitable[Any]]"]
"""The functions read, write and flush of one coroutine: a block at an offset."""

_CONTEXTS: Final = {"thread_aio": "thread_aio", "linux_aio": "/[aio]", "linux_uring": "[io_uring]"}
"""The mapping in /proc/self/maps that proves which kind of context caio uses, and not its fallback."""


@asynccontextmanager
async def aiod(order: Order) -> AsyncIterator[list[Calls]]:
    """One connection and one open file for all."""
    import aiod_client.aio

    connecting = aiod_client.aio.connect(order.options["endpoint"], transport=order.options["transport"])
    size, data = order.work.block_bytes, os.urandom(order.work.block_bytes)
    async with connecting as client, await client.open(order.address, "r+") as file:
        calls: Calls = {
            "read": lambda offset: file.pread(size, offset),
            "write": lambda offset: file.pwrite(data, offset),
            "flush": lambda _: file.flush(),
        }
        yield [calls] * order.depth


@asynccontextmanager
async def caio(order: Order) -> AsyncIterator[list[Calls]]:
    """One context for all coroutines."""
    kind = order.options["context"]
    context_type = importlib.import_module(f"caio.{kind}_asyncio").AsyncioContext
    fd = os.open(order.address, os.O_RDWR)
    size, data = order.work.block_bytes, os.urandom(order.work.block_bytes)
    async with context_type(max_requests=order.depth) as context:
        check_kind(kind)
        calls: Calls = {
            "read": lambda offset: context.read(size, fd, offset),
            "write": lambda offset: context.write(data, fd, offset),
            "flush": lambda _: context.fdsync(fd),
        }
        yield [calls] * order.depth
    os.close(fd)


def check_kind(kind: str) -> None:
    """Raise RuntimeError if caio uses another kind of context than its name says."""
    if _CONTEXTS[kind] not in Path("/proc/self/maps").read_text():
        raise RuntimeError(f"caio's context is not {kind}")


@asynccontextmanager
async def executor(order: Order) -> AsyncIterator[list[Calls]]:
    """os.pread, os.pwrite, os.fdatasync by run_in_executor, with as many threads as requests in flight."""
    file = PlainFile(order.address, order.work.block_bytes, direct=order.direct)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(order.depth) as pool:
        calls: Calls = {
            "read": lambda offset: loop.run_in_executor(pool, file.read, offset),
            "write": lambda offset: loop.run_in_executor(pool, file.write, offset),
            "flush": lambda offset: loop.run_in_executor(pool, file.flush, offset),
        }
        yield [calls] * order.depth


@asynccontextmanager
async def aiofiles(order: Order) -> AsyncIterator[list[Calls]]:
    """One open file for each coroutine, because files have a position."""
    opener = importlib.import_module("aiofiles").open
    loop = asyncio.get_running_loop()
    size, data = order.work.block_bytes, os.urandom(order.work.block_bytes)

    def calls(file: Any) -> Calls:
        async def read(offset: int) -> Any:
            await file.seek(offset)
            return await file.read(size)

        async def write(offset: int) -> Any:
            await file.seek(offset)
            return await file.write(data)

        return {
            "read": read,
            "write": write,
            "flush": lambda _: loop.run_in_executor(None, os.fdatasync, file.fileno()),
        }

    async with AsyncExitStack() as stack:
        files = [await stack.enter_async_context(opener(order.address, "r+b", buffering=0)) for _ in range(order.depth)]
        yield [calls(file) for file in files]


LIBRARIES: Final[dict[str, Callable[[Order], AbstractAsyncContextManager[list[Calls]]]]] = {
    "aiod": aiod,
    "caio": caio,
    "executor": executor,
    "aiofiles": aiofiles,
}


def run(order: Order) -> dict[str, Any]:
    """Connect, do the work, and print the figures, on the event loop of that style."""
    factory = asyncio.new_event_loop
    if order.style == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_measure(order))


async def _measure(order: Order) -> dict[str, Any]:
    async with LIBRARIES[order.library](order) as slots:
        watch = Stopwatch(order)
        one_by_one = (
            _one_by_one(calls, order, watch.end_ns, number / order.depth) for number, calls in enumerate(slots)
        )
        return watch.document(await asyncio.gather(*one_by_one))


async def _one_by_one(calls: Calls, order: Order, end_ns: int, share: float) -> Tally:
    tally = Tally(order.work)
    for kind, offset in order.requests(share):
        began_ns = time.perf_counter_ns()
        if began_ns > end_ns:
            break
        tally.add(kind, began_ns, await calls[kind](offset))
        if order.work.flush:
            began_ns = time.perf_counter_ns()
            tally.add("flush", began_ns, await calls["flush"](0))
    return tally
