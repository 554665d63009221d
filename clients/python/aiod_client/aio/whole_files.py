"""Whole files and stats by path, for the asyncio client: by the ring where it can, else by messages."""

# ruff: noqa: ASYNC109 - the same names and arguments as the blocking client's

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client.aio.export_names import by_message, names_of, on_path
from aiod_client.records import FileStat, parse_stat
from aiod_client.requests.paths import parse_path
from aiod_client.requests.whole_files import (
    READ_AHEAD,
    UNKNOWN_SIZE_PART,
    FileContent,
    directory_of,
    temporary_name,
    too_large,
)
from aiod_client.ring.paths import STAT_BYTES, WITH_STAT, failed_on_path, larger_room
from aiod_protocol.operations import Op, OpFlag
from aiod_protocol.wire import STAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from aiod_client.aio.file import File
    from aiod_client.aio.link import Link
    from aiod_protocol.key_files import StrPath

_READ_FILE: Final = int(Op.READ_FILE)
_STAT_NAME: Final = int(Op.STAT_NAME)
_WRITE_FILE: Final = int(Op.WRITE_FILE)
_DURABLE: Final = int(OpFlag.FUA)
_EXCLUSIVE: Final = int(OpFlag.EXCLUSIVE)
_TRIES: Final = 8
"""How often READ_FILE is tried of a file that grows."""


class Client(Protocol):
    """The methods of Client that are used here."""

    async def open(self, path: StrPath, mode: str = "r", *, timeout: float | None = None) -> File:
        """Open a file."""

    async def rename(self, path: str, new_path: str, *, replace: bool = True, timeout: float | None = None) -> None:
        """Rename a file."""

    async def remove(self, path: str) -> None:
        """Remove a file."""

    async def sync(self, path: str, *, timeout: float | None = None) -> None:
        """Make the entries of a directory durable."""

    async def _link(self, export: str, timeout_s: float) -> Link:
        """The session where `export` is served."""


async def read_file(client: Client, path: StrPath, max_bytes: int, timeout_s: float, flags: int = 0) -> bytes:
    """See Client.read_file(). With `flags` WITH_STAT the record of STAT comes before the bytes."""
    export, inside = parse_path(path)
    deadline_s = time.monotonic() + timeout_s
    room: int | None = None
    for _ in range(_TRIES):
        link, paths, handle = await names_of(client, export, deadline_s)
        if paths is None:
            break
        room = room or paths.room
        found = await on_path(link, paths, (_READ_FILE, flags, handle, inside, None, room), path, deadline_s)
        if type(found) is bytes:
            length = len(found) - (STAT_BYTES if flags else 0)
            if length > max_bytes:
                raise too_large(os.fspath(path), length, max_bytes)
            return found
        if type(found) is not tuple or by_message(link, paths, export, handle, found):
            break
        size = larger_room(found, room)
        if size is None:
            raise failed_on_path("read", os.fspath(path), found, timeout_s)
        if size > max_bytes:
            raise too_large(os.fspath(path), size, max_bytes)
        room = paths.room_for(inside, size)
        if room is None:
            break
    async with await client.open(path, timeout=_left_s(deadline_s)) as file:
        record = STAT.pack(*(await file.stat(timeout=_left_s(deadline_s)))) if flags else b""
        data = await _read_opened(file, os.fspath(path), max_bytes, deadline_s)
        return record + data if flags else data


async def read_file_and_stat(client: Client, path: StrPath, max_bytes: int, timeout_s: float) -> tuple[bytes, FileStat]:
    """See Client.read_file_and_stat()."""
    found = await read_file(client, path, max_bytes, timeout_s, WITH_STAT)
    return found[STAT_BYTES:], parse_stat(found[:STAT_BYTES])


async def _read_opened(file: File, path: str, max_bytes: int, deadline_s: float) -> bytes:
    size = await file.size(timeout=_left_s(deadline_s))
    if size > max_bytes:
        raise too_large(path, size, max_bytes)
    if size > 0:
        return await file.pread(size, 0, timeout=_left_s(deadline_s))
    parts = bytearray()
    while part := await file.pread(UNKNOWN_SIZE_PART, len(parts), timeout=_left_s(deadline_s)):
        parts += part
        if len(parts) > max_bytes:
            raise too_large(path, len(parts), max_bytes)
    return bytes(parts)


async def read_files(paths: Iterable[str], read_one: Callable[[str], Awaitable[bytes]]) -> AsyncIterator[FileContent]:
    """See Client.read_files(); `read_one` reads a file."""
    ahead: deque[asyncio.Task[FileContent]] = deque()
    rest = iter(paths)

    async def read(path: str) -> FileContent:
        try:
            return FileContent(path, await read_one(path))
        except OSError as error:
            return FileContent(path, None, error)

    try:
        for path in rest:
            ahead.append(asyncio.create_task(read(path)))
            if len(ahead) == READ_AHEAD:
                yield await ahead.popleft()
        while ahead:
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()


async def stat(client: Client, path: StrPath, timeout_s: float) -> bytes | None:
    """The record of Client.stat(), by the ring; None: by message."""
    export, inside = parse_path(path)
    deadline_s = time.monotonic() + timeout_s
    link, paths, handle = await names_of(client, export, deadline_s)
    if paths is None:
        return None
    found = await on_path(link, paths, (_STAT_NAME, 0, handle, inside, None, STAT_BYTES), path, deadline_s)
    if type(found) is bytes:
        return found
    if type(found) is not tuple or by_message(link, paths, export, handle, found):
        return None
    raise failed_on_path("stat", os.fspath(path), found, timeout_s)


async def write_file(
    client: Client, path: StrPath, data: Any, timeout_s: float, *, durable: bool, exclusive: bool
) -> None:
    """See Client.write_file()."""
    export, inside = parse_path(path)
    deadline_s = time.monotonic() + timeout_s
    link, paths, handle = await names_of(client, export, deadline_s)
    if paths is not None:
        flags = (_DURABLE if durable else 0) | (_EXCLUSIVE if exclusive else 0)
        length = memoryview(data).nbytes
        found = await on_path(link, paths, (_WRITE_FILE, flags, handle, inside, data, length), path, deadline_s)
        if type(found) is int:
            return
        if type(found) is tuple and not by_message(link, paths, export, handle, found, may_repeat=False):
            raise failed_on_path("write", os.fspath(path), found, timeout_s)
    await _write_by_messages(client, os.fspath(path), data, deadline_s, durable=durable, exclusive=exclusive)


async def _write_by_messages(
    client: Client, path: str, data: Any, deadline_s: float, *, durable: bool, exclusive: bool
) -> None:
    temporary = temporary_name(path)
    file = await client.open(temporary, "x", timeout=_left_s(deadline_s))
    try:
        async with file:
            await file.pwrite(data, 0, timeout=_left_s(deadline_s))
            if durable:
                await file.flush(timeout=_left_s(deadline_s))
        await client.rename(temporary, path, replace=not exclusive, timeout=_left_s(deadline_s))
    except BaseException:
        with contextlib.suppress(OSError):
            await client.remove(temporary)
        raise
    if durable:
        await client.sync(directory_of(path), timeout=_left_s(deadline_s))


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())
