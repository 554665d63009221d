"""pread_view(): a large read by message is not copied; the view is read-only, and outlives its client."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import _ring, aio
from aiod_protocol.wire import SHARED_PAYLOAD_MAX

if TYPE_CHECKING:
    from tests.conftest import Daemon

DATA = os.urandom(1 << 20)


def views_of_blocking(endpoint: str, transport: Any) -> list[memoryview]:
    """A large view, a small one, and one past the end of the file."""
    with aiod_client.connect(endpoint, transport=transport) as client, client.open("scratch/views", "w+") as file:
        file.pwrite(DATA, 0)
        return [file.pread_view(len(DATA), 0), file.pread_view(4096, 512), file.pread_view(4096, len(DATA))]


def views_of_aio(endpoint: str, transport: Any) -> list[memoryview]:
    """As views_of_blocking()."""

    async def main() -> list[memoryview]:
        async with (
            aio.connect(endpoint, transport=transport) as client,
            await client.open("scratch/views", "w+") as file,
        ):
            await file.pwrite(DATA, 0)
            places = [(len(DATA), 0), (4096, 512), (4096, len(DATA))]
            return [await file.pread_view(*place) for place in places]

    return asyncio.run(main())


@pytest.mark.parametrize("views_of", [views_of_blocking, views_of_aio])
@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_a_view_has_the_bytes_of_the_file(shared_daemon: Daemon, views_of: Any, transport: Any) -> None:
    large, small, none = views_of(shared_daemon.endpoint, transport)
    assert (large, small, none) == (DATA, DATA[512 : 512 + 4096], b"")
    assert large.readonly
    assert small.readonly


def test_only_a_large_view_keeps_its_message(shared_daemon: Daemon) -> None:
    large, small, _ = views_of_blocking(shared_daemon.endpoint, "zmq")
    assert len(large) >= SHARED_PAYLOAD_MAX > len(small)
    assert isinstance(large.obj, _ring.ZmqFrame)
    assert isinstance(small.obj, bytes)
