"""A copy within one file that is sent in parts ends at the former end of the file, not behind the data it has added."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio, operations
from aiod_client.requests import split
from aiod_client.session import in_flight

if TYPE_CHECKING:
    from collections.abc import Callable

PART = 64 * 1024
CONTENT = bytes(range(256)) * (PART // 256 + PART // 512)


@pytest.fixture
def endpoint(new_daemon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """A daemon that executes one part after the other; the parts are short."""
    for module, name in ((operations, "RANGE_BYTES_MAX"), (split, "RANGE_BYTES_MAX"), (in_flight, "PART_BYTES_MAX")):
        monkeypatch.setattr(module, name, PART)
    daemon = new_daemon(**{"engine.main": {"max_threads": 1}})
    daemon.start()
    return str(daemon.endpoint)


def test_the_blocking_copy_ends_at_the_former_end_of_the_file(endpoint: str) -> None:
    with aiod_client.connect(endpoint) as client, client.open("scratch/file", "w+") as file:
        file.pwrite(CONTENT, 0)
        assert file.copy_range(file, 0, 2 * PART, 2 * PART) == len(CONTENT)
        assert file.pread(4 * PART, 2 * PART) == CONTENT
        assert file.copy_range(file, 8 * PART, 20 * PART, 2 * PART) == 0


def test_the_awaited_copy_ends_at_the_former_end_of_the_file(endpoint: str) -> None:
    async def main() -> None:
        async with aio.connect(endpoint) as client, await client.open("scratch/file", "w+") as file:
            await file.pwrite(CONTENT, 0)
            assert await file.copy_range(file, 0, 2 * PART, 2 * PART) == len(CONTENT)
            assert await file.pread(4 * PART, 2 * PART) == CONTENT

    asyncio.run(main())
