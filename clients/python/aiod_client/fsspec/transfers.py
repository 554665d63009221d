"""Streams between a file of the daemon and a local one, with at most two parts of each in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from aiod_client import aio

PART_BYTES: Final = 2 << 20


async def upload(source: BinaryIO, file: aio.File, callback: Any) -> None:
    """Write the rest of `source` to `file`. A thread reads ahead while the daemon writes: a disk may wait."""
    offset = 0
    part = await asyncio.to_thread(source.read, PART_BYTES)
    while part:
        ahead = asyncio.create_task(asyncio.to_thread(source.read, PART_BYTES))
        try:
            await file.pwrite(part, offset)
        finally:
            following = await ahead
        offset += len(part)
        callback.relative_update(len(part))
        part = following


async def download(file: aio.File, target: BinaryIO, callback: Any) -> None:
    """Write `file` to `target`, while the daemon reads ahead."""
    offset = 0
    part = await file.pread(PART_BYTES, offset)
    while part:
        offset += len(part)
        ahead = asyncio.create_task(file.pread(PART_BYTES, offset))
        try:
            await asyncio.to_thread(target.write, part)
        except BaseException:
            ahead.cancel()
            raise
        callback.relative_update(len(part))
        part = await ahead


async def relay(source: aio.File, target: aio.File) -> None:
    """Copy between files of two engines, through this process."""
    offset = 0
    while part := await source.pread(PART_BYTES, offset):
        await target.pwrite(part, offset)
        offset += len(part)
