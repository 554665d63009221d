"""Futures of the blocking client in asyncio: asyncio.wrap_future() gives their results, and cancelling never waits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import freeze
from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)


@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_the_loop_runs_on_when_a_wrapped_future_is_cancelled(daemon: Daemon, transport: Any) -> None:
    """The engine answers nothing meanwhile, and the client has no timeout: cancel() must not wait for the answer."""
    pid = daemon.engine["pid"]

    async def main(file: aiod_client.File) -> None:
        freeze(pid)
        try:
            submitted = file.submit([("read", 4, 0), ("write", b"more", 0)])
            wrapped = [asyncio.wrap_future(future) for future in submitted]
            for future in wrapped:
                future.cancel()
            await asyncio.gather(*wrapped, return_exceptions=True)
            assert all(future.cancelled() for future in wrapped)
        finally:
            os.kill(pid, signal.SIGCONT)
        _, left = await asyncio.to_thread(concurrent.futures.wait, submitted, PATIENCE_S)
        assert not left

    connecting = aiod_client.connect(daemon.endpoint, transport=transport, timeout=math.inf)
    with connecting as client, client.open("scratch/wrapped", "w+") as file:
        file.pwrite(b"data", 0)
        asyncio.run(asyncio.wait_for(main(file), PATIENCE_S))
        assert file.pread(4, 0) in {b"data", b"more"}


def test_a_wrapped_future_has_the_result(shared_daemon: Daemon) -> None:
    async def main(file: aiod_client.File) -> None:
        futures = file.submit([("write", b"more", 0), ("size",)])  # in any order
        assert [await asyncio.wrap_future(future) for future in futures] == [4, 4]

    connecting = aiod_client.connect(shared_daemon.endpoint, timeout=PATIENCE_S)
    with connecting as client, client.open("scratch/wrapped", "w+") as file:
        file.pwrite(b"data", 0)
        asyncio.run(asyncio.wait_for(main(file), PATIENCE_S))
