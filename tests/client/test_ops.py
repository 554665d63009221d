"""aiod_client.ops: each operation is the tuple that submit() describes, and its future has the type that it says."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio, operations, ops
from tests.patience import scaled

if TYPE_CHECKING:
    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)
FIGETBSZ = 2


def batch(file: Any, into: bytearray) -> list[tuple[ops.Operation[Any], Any]]:
    """Operations on a file that begins with eight bytes, and their results."""
    return [
        (ops.read(4, 0), b"data"),
        (ops.read_view(4, 0), b"data"),
        (ops.read_into(into, 0), 4),
        (ops.readv([into], 0), 4),
        (ops.write(b"more", 4), 4),
        (ops.writev([b"mo", b"re"], 4, fua=True), 4),
        (ops.flush(), 0),
        (ops.size(), 8),
        (ops.truncate(8), 0),
        (ops.write_zeroes(8, 0), 0),
        (ops.allocate(0, 8, keep_size=True), 0),
        (ops.prefetch(0, 8), 0),
        (ops.copy_range(file, 0, 4096, 0), 0),
        (ops.extents(0, 0), []),
    ]


@pytest.mark.parametrize("transport", ["zmq", "ring"])
def test_each_operation_has_its_result(shared_daemon: Daemon, transport: Any) -> None:
    connecting = aiod_client.connect(shared_daemon.endpoint, transport=transport, timeout=PATIENCE_S)
    with connecting as client, client.open("scratch/ops", "w+") as file:
        file.pwrite(b"datamore", 0)
        for operation, result in batch(file, bytearray(4)):
            (future,) = file.submit_each(operation)
            assert future.result(PATIENCE_S) == result, operation
        data, size, stat = file.submit_each(ops.read(4, 0), ops.size(), ops.stat(), timeout=PATIENCE_S)
        assert (data.result(), size.result(), stat.result().size) == (b"data", 8, 8)
    with connecting, pytest.raises(aiod_client.AiodError):
        file.submit_each(ops.size())


def test_each_operation_can_be_awaited(shared_daemon: Daemon) -> None:
    async def main() -> None:
        async with (
            aio.connect(shared_daemon.endpoint, timeout=PATIENCE_S) as client,
            await client.open("scratch/ops", "w+") as file,
        ):
            await file.pwrite(b"datamore", 0)
            for operation, result in batch(file, bytearray(4)):
                (future,) = file.submit_each(operation)
                assert await future == result, operation
            data, size = file.submit_each(ops.read(4, 0), ops.size())
            assert (await data, await size) == (b"data", 8)

    asyncio.run(main())


def test_there_is_a_function_for_each_operation_of_a_batch() -> None:
    made = {name for name, _ in inspect.getmembers(ops, inspect.isfunction)}
    assert made == set(operations._MAKERS)
    assert ops.append(b"x") == ("append", b"x")
    assert ops.discard(0, 4) == ("discard", 0, 4)
    assert ops.ioctl(FIGETBSZ, bytes(4)) == ("ioctl", FIGETBSZ, bytes(4))
