"""Accepted buffers, and the errors for others: the same by ring and by message, blocking and awaited."""

from __future__ import annotations

import array
import asyncio
import ctypes
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """By ring and by message."""
    return request.param


class Blocking:
    """A file of the blocking client."""

    def __init__(self, endpoint: str, transport: Any) -> None:
        self._client = aiod_client.connect(endpoint, transport=transport)
        self._file = self._client.open("scratch/buffers", "w+")

    def close(self) -> None:
        """Close the file and the client."""
        self._file.close()
        self._client.close()

    def do(self, operation: str, *arguments: Any) -> Any:
        """Execute one operation."""
        return getattr(self._file, operation)(*arguments)

    def submit(self, *item: Any) -> Any:
        """Execute one operation, in a batch of one."""
        return self._file.submit([item])[0].result()


class Awaited:
    """A file of the asyncio client."""

    def __init__(self, endpoint: str, transport: Any) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._open(endpoint, transport))

    async def _open(self, endpoint: str, transport: Any) -> None:
        self._client = await aio.connect(endpoint, transport=transport)
        self._file = await self._client.open("scratch/buffers", "w+")

    async def _close(self) -> None:
        await self._file.close()
        await self._client.close()

    def close(self) -> None:
        """Close the file and the client."""
        self._runner.run(self._close())
        self._runner.close()

    async def _do(self, operation: str, *arguments: Any) -> Any:
        return await getattr(self._file, operation)(*arguments)

    def do(self, operation: str, *arguments: Any) -> Any:
        """Execute one operation."""
        return self._runner.run(self._do(operation, *arguments))

    async def _submit(self, *item: Any) -> Any:
        return await self._file.submit([item])[0]

    def submit(self, *item: Any) -> Any:
        """Execute one operation, in a batch of one."""
        return self._runner.run(self._submit(*item))


@pytest.fixture(params=[Blocking, Awaited])
def file(request: pytest.FixtureRequest, shared_daemon: Any, transport: Any) -> Iterator[Any]:
    """A file of either client, by either transport."""
    made = request.param(shared_daemon.endpoint, transport)
    yield made
    made.close()


def sources(file: Any) -> list[Callable[[Any], object]]:
    """All operations that write from a buffer."""
    return [
        lambda data: file.do("pwrite", data, 0),
        lambda data: file.do("pwritev", [b"before", data], 0),
        lambda data: file.do("append", data),
        lambda data: file.submit("write", data, 0),
        lambda data: file.submit("writev", [data], 0),
    ]


def targets(file: Any) -> list[Callable[[Any], object]]:
    """All operations that read into a buffer."""
    return [
        lambda buffer: file.do("pread_into", buffer, 0),
        lambda buffer: file.do("preadv", [bytearray(1), buffer], 0),
        lambda buffer: file.submit("read_into", buffer, 0),
        lambda buffer: file.submit("readv", [buffer], 0),
    ]


def test_a_buffer_that_is_not_contiguous_raises_buffer_error(file: Any) -> None:
    uses = sources(file) + targets(file)
    strided = [memoryview(bytearray(100))[::2], memoryview(bytearray(100))[::-1]]
    for use in uses:
        for buffer in strided:
            with pytest.raises(BufferError, match="memoryview is not C-contiguous: copy it"):
                use(buffer)
    assert file.do("size") == 0
    assert strided[0].tobytes() == bytes(50)


def test_a_read_into_a_read_only_buffer_raises_type_error(file: Any) -> None:
    for use in targets(file):
        for buffer in (b"constant", memoryview(bytearray(8)).toreadonly()):
            with pytest.raises(TypeError, match="the buffer is read-only"):
                use(buffer)


def test_an_object_that_is_no_buffer_raises_type_error(file: Any) -> None:
    for use in sources(file) + targets(file):
        for buffer in (5, "text", None):
            with pytest.raises(TypeError, match="bytes-like"):
                use(buffer)


class Pair(ctypes.Structure):
    """16 bytes of a structured format."""

    _fields_ = (("first", ctypes.c_uint64), ("second", ctypes.c_uint64))


@pytest.mark.parametrize(
    "made",
    [
        lambda: array.array("d", bytes(16)),
        ctypes.c_uint32 * 4,
        Pair,
        lambda: memoryview(bytearray(16)).cast("B", (4, 4)),
        lambda: memoryview(bytearray(20))[2:18],
    ],
)
def test_any_contiguous_memory_is_accepted(file: Any, made: Callable[[], Any]) -> None:
    data = bytes(range(1, 17))
    for read in targets(file):
        file.do("pwrite", b"\0" + data, 0)
        into = made()
        read(into)
        assert data[:15] in bytes(memoryview(into))
        file.do("truncate", 0)
        for write in sources(file):
            write(into)
        assert bytes(memoryview(into)) in file.do("pread", 100, 0)
