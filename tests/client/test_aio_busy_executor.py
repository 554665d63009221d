"""The asyncio client needs no thread of the loop's default executor, which a busy program has none left of."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from aiod_client import aio
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = scaled(60.0)


@pytest.fixture
def busy() -> Iterator[ThreadPoolExecutor]:
    """An executor whose only thread is busy until the end of the test."""
    ends = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(ends.wait)
        yield executor
        ends.set()


@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_files_are_opened_used_and_closed(shared_daemon: Any, busy: ThreadPoolExecutor, transport: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(busy)
        client = await aio.connect(shared_daemon.endpoint, transport=transport, timeout=PATIENCE_S)
        file = await client.open("scratch/busy", "w+")
        assert await file.pwrite(b"data", 0) == 4
        (future,) = file.submit([("read", 4, 0)])
        await future.cancel_request()
        assert future.cancelled() or await future == b"data"
        await client.close()

    with asyncio.Runner() as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE_S))
        runner.get_loop().set_default_executor(ThreadPoolExecutor(1))  # the runner waits for the threads of its loop's
