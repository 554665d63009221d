"""A program for type checkers. An `ignore` is an error that a checker must find; one too many is an error, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, assert_type

import aiod_client
from aiod_client import AiodError, Entry, Extent, FileStat, Transport, aio, fileobj, ops
from aiod_client.aio import files

if TYPE_CHECKING:
    import io

TRANSPORT: Transport = "ring"
VERSION: str = aiod_client.__version__


def blocking(client: aiod_client.Client) -> None:
    with client.open("scratch/a", "r+", direct=True, timeout=1.0) as f:
        assert_type(f, aiod_client.File)
        assert_type(f.pread(4, 0), bytes)
        assert_type(f.pread_into(bytearray(4), 0), int)
        assert_type(f.pread_view(4, 0), memoryview)
        assert_type(f.preadv([bytearray(4), memoryview(bytearray(2))], 0), int)
        assert_type(f.pwrite(b"data", 0, fua=True), int)
        assert_type(f.append(memoryview(b"data")), int)
        assert_type(f.stat(), FileStat)
        assert_type(f.extents(), list[Extent])
        assert_type(f.ioctl(2, bytes(4)), tuple[int, bytes])
        futures = f.submit([("read", 4, 0)])
        assert_type(futures[0].result(), Any)
        data, size, stat = f.submit_each(ops.read(4, 0), ops.size(), ops.stat())
        assert_type(data.result(), bytes)
        assert_type(size.result(), int)
        assert_type(stat.result(), FileStat)
        assert_type([each.result() for each in f.submit_each(*[ops.read(4, at) for at in range(9)])], list[bytes])
        ops.read("4", 0)  # type: ignore[arg-type]
        named: aiod_client.RequestFuture = futures[0]
        assert_type(named.result(), Any)
        f.pwrite("text", 0)  # type: ignore[arg-type]
        f.pread("4", 0)  # type: ignore[arg-type]
        f.pwrite(b"data")  # type: ignore[call-arg]
        f.prread(4, 0)  # type: ignore[attr-defined]
    assert_type(client.read_file("scratch/a"), bytes)
    assert_type(client.list("scratch"), list[Entry])
    client.write_file("scratch/a", "text")  # type: ignore[arg-type]
    client.closed = "yes"  # type: ignore[assignment]


def connecting() -> None:
    with aiod_client.connect(transport=TRANSPORT, timeout=None) as client:
        assert_type(client, aiod_client.Client)
    aiod_client.conect()  # type: ignore[attr-defined]
    aiod_client.connect(transport="rnig")  # type: ignore[arg-type]
    aiod_client.connect("ipc:///x", "ring")  # type: ignore[call-arg]


def errors(client: aiod_client.Client) -> None:
    try:
        client.open("scratch/a")
    except ConnectionRefusedError:
        pass
    except AiodError as error:
        assert_type(error.written, int)
        assert_type(error.reason, int)
    except OSError as error:
        assert_type(aiod_client.written(error), int)


def file_objects(client: aiod_client.Client, mode: str) -> None:
    assert_type(fileobj.open(client, "scratch/a").read(), bytes)
    reader: io.BufferedReader = fileobj.open(client, "scratch/a", "rb")
    writer: io.BufferedWriter = fileobj.open(client, "scratch/a", "w", timeout=1.0)
    both: io.BufferedRandom = fileobj.open(client, "scratch/a", "r+")
    assert_type(fileobj.open(client, "scratch/a", "rt", encoding="utf-8").readline(), str)
    assert_type(fileobj.open(client, "scratch/a", "r", 0), fileobj.RawFile)
    assert_type(fileobj.open(client, "scratch/a", mode).read(), Any)
    fileobj.open(client, "scratch/a", "rb", encoding="utf-8")  # type: ignore[call-overload]
    del reader, writer, both


async def awaited() -> None:
    async with aio.connect() as client, await client.open("scratch/a") as f:
        assert_type(f, aio.File)
        assert_type(await f.pread(4, 0), bytes)
        future = f.submit([("size",)])[0]
        assert_type(await future, Any)
        (extents,) = f.submit_each(ops.extents(0, 4096))
        assert_type(await extents, list[Extent])
        f.pread(4, 0)  # type: ignore[unused-coroutine]
        await f.pwrite("text", 0)  # type: ignore[arg-type]
    async with files.open("scratch/a") as text:
        assert_type(await text.read(), str)
        async for line in text:
            assert_type(line, str)
    async with files.open("scratch/a", "rb") as data:
        assert_type(await data.readline(), bytes)
        await data.write("text")  # type: ignore[arg-type]
    opened = await files.open("scratch/a", "w")
    await opened.write(b"data")  # type: ignore[arg-type]


asyncio.run(awaited())
